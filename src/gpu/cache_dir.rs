//! Where the program keeps what it can compute again.

use std::env;
use std::path::PathBuf;

/// The folder for cached files: `NIN_WGPU_CACHE_DIR`, else `nin-wgpu` in the user's cache folder. `None` where
/// `NIN_WGPU_NO_CACHE=1` or the system names no such folder. It need not exist yet.
pub fn cache_dir() -> Option<PathBuf> {
    if env::var_os("NIN_WGPU_NO_CACHE").is_some_and(|value| value == "1") {
        return None;
    }
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME");
    variable("NIN_WGPU_CACHE_DIR").or_else(|| {
        let user = if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home().map(|home| home.join("Library/Caches"))
        } else {
            variable("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
        };
        user.map(|folder| folder.join("nin-wgpu"))
    })
}
