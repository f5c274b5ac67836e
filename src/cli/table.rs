//! Tables for people: columns as wide as their widest cell, in columns of a terminal.

use super::format::{display_width, pad};

/// Where the text of a column goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// Stands before what would not fit beside its row.
const BELOW: &str = "    ";

/// Rows of cells; the first row is the heading.
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with the given headings.
    pub fn new(headings: &[(&str, Align)]) -> Self {
        Table {
            columns: headings.iter().map(|(_, align)| *align).collect(),
            rows: vec![headings.iter().map(|(name, _)| (*name).to_string()).collect()],
        }
    }

    /// Appends a row of as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The table as lines, without spaces at their ends.
    pub fn render(&self) -> String {
        self.render_columns(self.columns.len())
    }

    /// As [`Table::render`] in lines of at most `width` columns: what is in the last column goes on in further lines of that
    /// column, or, where that is too narrow for a word, stands below its row.
    pub fn render_within(&self, width: Option<usize>) -> String {
        let Some(width) = width else { return self.render() };
        let last = self.columns.len() - 1;
        let (whole, others) = (self.render(), self.render_columns(last));
        let longest = |lines: &str| lines.lines().map(display_width).max().unwrap_or(0);
        if longest(&whole) <= width {
            return whole;
        }
        let word = self.rows.iter().flat_map(|row| row[last].split(' ')).map(display_width).max().unwrap_or(0);
        let start = longest(&others) + 2;
        let mut text = String::new();
        for (line, row) in others.lines().zip(&self.rows) {
            if start + word <= width {
                let parts = wrapped(&row[last], width - start);
                let begins = std::iter::once(line).chain(std::iter::repeat(""));
                let lines = parts.iter().zip(begins).map(|(part, begin)| format!("{}{part}", pad(begin, start)));
                lines.for_each(|line| text.push_str(&format!("{}\n", line.trim_end())));
            } else {
                text.push_str(&format!("{line}\n"));
                let parts = wrapped(&row[last], width.saturating_sub(BELOW.len()));
                parts.iter().filter(|part| !part.is_empty()).for_each(|part| text.push_str(&format!("{BELOW}{part}\n")));
            }
        }
        text
    }

    /// The first `count` columns.
    fn render_columns(&self, count: usize) -> String {
        let width_of = |column: usize| self.rows.iter().map(|row| display_width(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..count).map(width_of).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&self.columns)
                .zip(&widths)
                .map(|((cell, align), width)| match align {
                    Align::Left => pad(cell, *width),
                    Align::Right => format!("{}{cell}", " ".repeat(width - display_width(cell))),
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Words in lines of at most `width` characters, but for longer words; at least one line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if display_width(line) + 1 + display_width(word) <= width => line.extend([" ", word]),
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("name", Align::Left), ("count", Align::Right), ("", Align::Left)]);
        table.row(vec!["é".into(), "1,000,000".into(), "x".into()]);
        table.row(vec!["longer".into(), "5".into(), String::new()]);
        assert_eq!(table.render(), "name        count\né       1,000,000  x\nlonger          5\n");
    }

    #[test]
    fn wide_characters_line_up() {
        let mut table = Table::new(&[("class", Align::Left), ("n", Align::Right), ("x", Align::Left)]);
        table.row(vec!["猫と犬".into(), "1".into(), "cafe\u{301}".into()]);
        table.row(vec!["cat".into(), "猫".into(), "b".into()]);
        assert_eq!(table.render(), "class    n  x\n猫と犬   1  cafe\u{301}\ncat     猫  b\n");
    }

    #[test]
    fn what_does_not_fit_goes_on_in_further_lines() {
        let mut table = Table::new(&[("name", Align::Left), ("ms", Align::Right), ("kernels", Align::Left)]);
        table.row(vec!["0.0".into(), "1.5".into(), "tiled + reduce".into()]);
        table.row(vec!["all".into(), "10.5".into(), String::new()]);
        let whole = "name    ms  kernels\n0.0    1.5  tiled + reduce\nall   10.5\n";
        assert_eq!(table.render_within(None), whole);
        assert_eq!(table.render_within(Some(26)), whole);
        let beside = "name    ms  kernels\n0.0    1.5  tiled +\n            reduce\nall   10.5\n";
        assert_eq!(table.render_within(Some(25)), beside);
        assert_eq!(table.render_within(Some(19)), beside);
        let below = "name    ms\n    kernels\n0.0    1.5\n    tiled + reduce\nall   10.5\n";
        assert_eq!(table.render_within(Some(18)), below);
        assert_eq!(table.render_within(Some(12)), below.replace(" + reduce", " +\n    reduce"));
    }
}
