//! What suits which version of llvmpipe, Mesa's driver for CPUs: all choices that its version decides stand here. They were measured
//! on Mesa 22.3.6, 25.0.7 and 26.2.6 (`benches/RESULTS.md`, "Three llvmpipes").

use crate::kernels::TEXTURE_REUSE;
use std::env;
use std::path::{Path, PathBuf};

/// From this version on, lanes load from buffers by gathers and not one by one, which is faster than what it takes to bring values into
/// textures.
const GATHERS: Version = Version(25, 1);

/// The last version before [`GATHERS`] that was measured to compile fast.
const FAST_COMPILER: Version = Version(22, 3);

/// The newest Vulkan version in the manifests of Mesa 22.3, the last that was measured to be faster with vectors of 512 bits: with
/// those, 25.0 and 26.2 shuffle lane by lane and take three times as long.
const WIDE_VECTORS: Version = Version(1, 230);

/// The first two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// How often a kernel has to load a value for a texture to pay ([`crate::kernels::Target::texture_reuse`]), with the driver's description
/// of itself: `llvmpipe Mesa 22.3.6 (LLVM 15.0.6)`. Where lanes load one by one they read from textures always: where that saves nothing
/// it costs little, and kernels that read from buffers take longest to compile.
pub(super) fn texture_reuse(driver: &str) -> u64 {
    match mesa(driver) {
        Some(version) if version >= GATHERS => u64::MAX,
        Some(_) => 0,
        None => TEXTURE_REUSE,
    }
}

/// Whether kernels take the driver three to four times as long to compile as they take others.
pub(super) fn compiles_slowly(driver: &str) -> bool {
    mesa(driver).is_some_and(|version| version > FAST_COMPILER && version < GATHERS)
}

fn mesa(driver: &str) -> Option<Version> {
    let (_, version) = driver.split_once("Mesa ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some(Version(numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether Vulkan's loader knows one.
pub(super) fn is_installed() -> bool {
    !manifests().is_empty()
}

/// Whether vectors of 512 bits, where the processor has them, are faster than llvmpipe's own choice of 256. It takes the choice when it
/// is loaded, before it can be asked for its version: so its manifests tell, and all of them have to agree.
pub(super) fn gains_from_wide_vectors() -> bool {
    let mut found = manifests().into_iter().filter_map(|path| vulkan_version(&std::fs::read_to_string(path).ok()?)).peekable();
    found.peek().is_some() && found.all(|version| version <= WIDE_VECTORS)
}

/// llvmpipe's manifests where Vulkan's loader looks for them.
fn manifests() -> Vec<PathBuf> {
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd"));
    let given = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].into_iter().find_map(env::var_os);
    if let Some(given) = given {
        return env::split_paths(&given).filter(is_ours).collect();
    }
    let folders = ["/usr/local/etc", "/usr/local/share", "/etc", "/usr/share"].map(|folder| Path::new(folder).join("vulkan/icd.d"));
    let entries = folders.into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours).collect()
}

/// The minor version and the patch of Vulkan that a manifest says. Its major version is 1, and Debian 12 writes 1.1.230 for 1.3.230:
/// so it is the patch that counts, and the minor version from 1.4 on.
fn vulkan_version(manifest: &str) -> Option<Version> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).ok()?;
    let mut numbers = manifest.get("ICD")?.get("api_version")?.as_str()?.split('.').map(str::parse);
    let (_, minor, patch): (u32, u32, u32) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(if minor < 4 { Version(1, patch) } else { Version(minor, patch) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn textures_pay_where_lanes_load_one_by_one() {
        for old in ["llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", "llvmpipe Mesa 25.0.7-2+deb13u1 (LLVM 19.1.7)"] {
            assert_eq!(texture_reuse(old), 0, "{old}");
        }
        for other in ["SwiftShader driver", "Mesa x", ""] {
            assert_eq!(texture_reuse(other), TEXTURE_REUSE, "{other}");
        }
        for new in ["llvmpipe Mesa 25.1.0 (LLVM 19.1.7)", "llvmpipe Mesa 26.2.6-1 (LLVM 22.1.8)", "Mesa 100.0"] {
            assert_eq!(texture_reuse(new), u64::MAX, "{new}");
        }
    }

    #[test]
    fn one_version_compiles_slowly() {
        assert!(compiles_slowly("llvmpipe Mesa 25.0.7-2+deb13u1 (LLVM 19.1.7)"));
        for fast in ["llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", "llvmpipe Mesa 26.2.6-1 (LLVM 22.1.8)", "SwiftShader driver"] {
            assert!(!compiles_slowly(fast), "{fast}");
        }
    }

    #[test]
    fn manifests_tell_the_version() {
        let of = |version: &str| vulkan_version(&format!(r#"{{"ICD": {{"api_version": "{version}", "library_path": "x.so"}}}}"#));
        assert!(of("1.1.230").is_some_and(|version| version <= WIDE_VECTORS), "Debian 12");
        assert!(of("1.3.230").is_some_and(|version| version <= WIDE_VECTORS), "Mesa 22.3");
        for newer in ["1.3.274", "1.4.305", "1.4.354", "1.5.1"] {
            assert!(of(newer).is_some_and(|version| version > WIDE_VECTORS), "{newer}");
        }
        assert_eq!([of("1.3"), of(""), of("a.b.c"), vulkan_version("{"), vulkan_version("{}")], [None; 5]);
    }
}
