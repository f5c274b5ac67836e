//! What the errors of every room have in common: what they mean to the caller, and text that is fit for one line.

use crate::files::path_text;
use std::path::Path;

/// What an error means to the caller, and so which exit code it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command asks for something that cannot be: exit code 2.
    Usage,
    /// Data, weights or a checkpoint cannot be used: exit code 6.
    BadData,
    /// Anything else, such as a full disk: exit code 1.
    Failed,
}

/// A path as messages show it: one line, whatever it is made of.
pub fn label(path: &Path) -> String {
    one_line(&path_text(path), 400)
}

/// `text` made fit for one line of a message: control characters escaped, at most `limit`
/// characters.
pub fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            line.push('…');
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}
