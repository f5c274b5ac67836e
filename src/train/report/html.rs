//! Text inside HTML.

use std::fmt;

/// Text that comes from users, as HTML shows it: safe between tags and within quoted attributes.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                // HTML has no other control characters, and directions must not reach beyond the name.
                c if c.is_control() && c != '\n' && c != '\t' => formatter.write_str("\u{fffd}")?,
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => formatter.write_str("\u{fffd}")?,
                c => fmt::Write::write_char(formatter, c)?,
            }
        }
        Ok(())
    }
}

/// A table's column: its heading, and whether it holds text.
pub struct Column(pub &'static str, pub bool);

/// Head of a table with these columns.
pub fn table_head(columns: &[Column]) -> String {
    let cells: String = columns
        .iter()
        .map(|Column(heading, is_text)| format!("<th scope=\"col\"{}>{heading}</th>", if *is_text { " class=\"name\"" } else { "" }))
        .collect();
    format!("<thead><tr>{cells}</tr></thead>")
}

/// A cell with a name, which is cut off where it is long.
pub fn name_cell(name: &str) -> String {
    let name = Escaped(name);
    format!("<td class=\"name\" title=\"{name}\">{name}</td>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_is_markup() {
        let name = "<script>alert('1')</script> & \"x\" \u{0}\u{202e}é\n";
        let safe = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;x&quot; \u{fffd}\u{fffd}é\n";
        assert_eq!(Escaped(name).to_string(), safe);
        assert!(name_cell(name).starts_with("<td class=\"name\" title=\"&lt;script"));
    }
}
