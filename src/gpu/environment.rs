//! Variables of the environment that Vulkan's loader and drivers read when they are first used.

use super::{cache_dir, llvmpipe};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Where Mesa's drivers keep compiled kernels.
const DRIVER_CACHE: &str = "MESA_SHADER_CACHE_DIR";

/// Sets what makes drivers behave, unless the user has set it.
///
/// llvmpipe uses vectors of 256 bits if it is not asked for more; on processors with AVX-512 those of 512 make the kernels of some
/// versions up to 1.4 times as fast ([`llvmpipe`]). Mesa's device-selection layer asks Wayland for a display and, without a session,
/// prints an error that is none. Where llvmpipe is installed, each width of its vectors gets a folder of its own for what Mesa's
/// drivers compile: 25.0 loads kernels of another width, and the program ends with a segmentation fault. Without a folder for caches (`NIN_WGPU_NO_CACHE`), drivers keep no
/// kernels either.
///
/// # Safety
///
/// To be called at the start of `main`: no other thread may run yet.
pub unsafe fn prepare_environment() {
    let set = |name: &str, value: &OsStr| {
        if env::var_os(name).is_none() {
            // SAFETY: no other thread runs, as the caller promises.
            unsafe { env::set_var(name, value) };
        }
    };
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        set("NODEVICE_SELECT", "1".as_ref());
    }
    let caches = cache_dir();
    if caches.is_none() {
        set("MESA_SHADER_CACHE_DISABLE", "true".as_ref());
    }
    if llvmpipe::is_installed() {
        if has_wide_vectors() && llvmpipe::gains_from_wide_vectors() {
            set("LP_NATIVE_VECTOR_WIDTH", "512".as_ref());
        }
        if let Some(caches) = caches {
            let width = env::var("LP_NATIVE_VECTOR_WIDTH").ok().and_then(|width| width.parse::<u32>().ok());
            let name = width.map_or("llvmpipe".into(), |width| format!("llvmpipe-{width}"));
            set(DRIVER_CACHE, caches.join(name).as_os_str());
        }
    }
}

/// Makes the folder for a driver's compiled kernels, if it is one of this program's: drivers make its last part only. Where it
/// cannot be made they keep none.
pub(super) fn make_driver_cache() {
    let folder = env::var_os(DRIVER_CACHE);
    if let (Some(folder), Some(caches)) = (folder, cache_dir())
        && Path::new(&folder).starts_with(caches)
    {
        let _ = fs::create_dir_all(folder);
    }
}

#[cfg(target_arch = "x86_64")]
fn has_wide_vectors() -> bool {
    // What LLVM's code for vectors of 512 bits uses.
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_wide_vectors() -> bool {
    false
}
