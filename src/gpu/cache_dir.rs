//! Where the program keeps what it can compute again.

use crate::variables;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where caches lie: `NIN_WGPU_CACHE_DIR`, else `nin-wgpu` in the user's cache folder. `None` where `NIN_WGPU_NO_CACHE=1`
/// or the system names no such folder. It need not exist yet.
pub fn cache_dir() -> Option<PathBuf> {
    cache_dir_from(|name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn cache_dir_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if variable(variables::NO_CACHE.name).is_some_and(|value| value == "1") {
        return None;
    }
    let path = |name| variable(name).map(PathBuf::from);
    if let Some(own) = path(variables::CACHE_DIR.name) {
        return Some(own);
    }
    let system = if cfg!(windows) {
        path("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        path("HOME").map(|home| home.join("Library/Caches"))
    } else {
        path("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| path("HOME").map(|home| home.join(".cache")))
    };
    system.map(|system| system.join("nin-wgpu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_variable_comes_first() {
        let of = |set: &[(&str, &str)]| {
            cache_dir_from(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
        };
        assert_eq!(of(&[("NIN_WGPU_CACHE_DIR", "here"), ("HOME", "/home/a")]), Some("here".into()));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("NIN_WGPU_CACHE_DIR", "here"), ("NIN_WGPU_NO_CACHE", "1")]), None);
        assert_eq!(of(&[("NIN_WGPU_CACHE_DIR", "here"), ("NIN_WGPU_NO_CACHE", "0")]), Some("here".into()));
        if cfg!(target_os = "linux") {
            assert_eq!(of(&[("HOME", "/home/a")]), Some("/home/a/.cache/nin-wgpu".into()));
            assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]), Some("/c/nin-wgpu".into()));
            assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")]), Some("/home/a/.cache/nin-wgpu".into()));
        }
    }
}
