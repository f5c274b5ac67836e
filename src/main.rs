//! The `nin-wgpu` program; everything is in the library, see [`nin_wgpu::cli`].

fn main() -> std::process::ExitCode {
    nin_wgpu::cli::main()
}
