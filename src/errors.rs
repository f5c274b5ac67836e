//! What the errors of every room have in common: what they mean to the caller, and text that is fit for one line.

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

/// A path as text that is told apart from every other path's: bytes that are no Unicode stand as `\xE9`, and backslashes
/// beside them are doubled.
pub fn path_text(path: &Path) -> String {
    let Some(text) = path.to_str() else {
        let mut text = String::new();
        for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
            text.push_str(&chunk.valid().replace('\\', "\\\\"));
            chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
        }
        return text;
    };
    text.to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn paths_that_are_no_text_stay_apart() {
        use std::os::unix::ffi::OsStrExt;
        let text = |bytes: &[u8]| path_text(Path::new(std::ffi::OsStr::from_bytes(bytes)));
        assert_eq!(text(b"caf\xe9.png"), "caf\\xE9.png");
        assert_eq!(text("café.png".as_bytes()), "café.png");
        assert_ne!(text(b"a\\xE9\xe9"), text(b"a\xe9\xe9"));
        assert_eq!(text(b"a\\b"), "a\\b");
    }
}
