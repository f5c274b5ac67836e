//! Names of classes: what can be one, and when two are the same.

use crate::errors::one_line;
use unicode_normalization::UnicodeNormalization;

/// A name in the one form in which names are compared and kept: accents are part of their letters (Unicode's NFC). Files from
/// a Mac often have them apart.
pub fn normal(name: &str) -> String {
    name.nfc().collect()
}

/// What makes a name useless as a class's, in words; `None` for good ones.
pub fn fault(name: &str) -> Option<&'static str> {
    // These turn the text around them, so that a table shows something else than it holds.
    let turns_text = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if name.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || turns_text(c)) {
        return Some("has characters that cannot be printed");
    }
    let is_invisible = |c: char| c.is_whitespace() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}');
    name.chars().all(is_invisible).then_some("has nothing to be seen in it")
}

/// What two names have in common that look alike: case and spaces around them left out.
pub fn folded(name: &str) -> String {
    normal(name.trim()).to_lowercase()
}

/// A name in quotation marks, on one line.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", one_line(name, 80))
}

/// Names in quotation marks; of many the first ones.
pub fn listed<S: AsRef<str>>(names: &[S]) -> String {
    const MOST: usize = 5;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| quoted(name.as_ref())).collect();
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_the_same_are_the_same() {
        assert_eq!(normal("cafe\u{301}"), normal("caf\u{e9}"));
        assert_eq!(folded(" Cafe\u{301}"), folded("caf\u{e9} "));
        assert_ne!(normal("cat"), normal("Cat"));
    }

    #[test]
    fn what_cannot_be_printed_is_no_name() {
        for name in
            ["tab\there", "line\nbreak", "\u{1b}[2J", "\u{7f}", "a\u{85}b", "a\u{202e}b", "a\u{2028}b", " ", "\u{3000}", "\u{200b}", ""]
        {
            assert!(fault(name).is_some(), "{name:?}");
        }
        for name in ["cat", " cat", "猫", "👩\u{200d}🌾", "می\u{200c}خواهم", "שלום\u{200f}", "a/b", "CON", &"x".repeat(255)]
        {
            assert_eq!(fault(name), None, "{name:?}");
        }
        assert_eq!(listed(&["a", "b\n"]), r#""a", "b\n""#);
        assert_eq!(listed(&["x"; 7]), r#""x", "x", "x", "x", "x" and 2 more"#);
    }
}
