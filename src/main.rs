//! The `nin-wgpu` program; everything is in the library, see [`nin_wgpu::cli`].

fn main() -> std::process::ExitCode {
    // SAFETY: no other thread runs yet.
    unsafe { nin_wgpu::gpu::prepare_environment() };
    nin_wgpu::cli::main()
}
