//! Variables of the environment that Vulkan's loader and drivers read when they are first used.

use super::llvmpipe;
use std::env;

/// Sets what makes drivers behave, unless the user has set it.
///
/// llvmpipe uses vectors of 256 bits if it is not asked for more; on processors with AVX-512 those of 512 make the kernels of some
/// versions up to 1.4 times as fast ([`llvmpipe`]). Mesa's device-selection layer asks Wayland for a display and, without a session,
/// prints an error that is none.
///
/// # Safety
///
/// To be called at the start of `main`: no other thread may run yet.
pub unsafe fn prepare_environment() {
    let set = |name: &str, value: &str| {
        if env::var_os(name).is_none() {
            // SAFETY: no other thread runs, as the caller promises.
            unsafe { env::set_var(name, value) };
        }
    };
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        set("NODEVICE_SELECT", "1");
    }
    if has_wide_vectors() && llvmpipe::gains_from_wide_vectors() {
        set("LP_NATIVE_VECTOR_WIDTH", "512");
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
