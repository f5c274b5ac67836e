//! The `nin-wgpu` program; everything is in the library, see [`nin_wgpu::cli`].

fn main() -> std::process::ExitCode {
    // Mesa's device-selection layer asks Wayland for a display and, without a session, prints an error that is none.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
    nin_wgpu::cli::main()
}
