//! Numbers and words as people and shells read them.

use unicode_width::UnicodeWidthStr;

pub use crate::train::format::{bytes, duration, percent, shape, thousands};

/// Columns that a text takes on a terminal: two for a Chinese character, none for an accent apart from its letter.
pub fn display_width(text: &str) -> usize {
    text.width()
}

/// A text with as many spaces behind it as fill `width` columns of a terminal.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(display_width(text))))
}

/// A path or word as a shell takes it: quoted where it has to be.
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:\\+,=@~".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_string();
    }
    if cfg!(windows) { format!("\"{text}\"") } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_are_quoted_where_needed() {
        assert_eq!(shell_word("runs/nin-1"), "runs/nin-1");
        assert_ne!(shell_word("my runs"), "my runs");
        assert_ne!(shell_word(""), "");
    }
}
