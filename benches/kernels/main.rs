//! Writes the matrix of kernels that `nin-wgpu bench --kernels DIR` proves and times: README.md beside this file says what is in it.
//!
//!     cargo run --release --example kernel_matrix -- DIR [--tiny] [--cores N]
//!
//! --tiny: small shapes, and matrix units also in ordinary arithmetic: for CPU drivers. --cores N: workgroups that run at
//! once, of which splits of the weight gradient make multiples [default: 132, an H100's].
//! Exit codes: 0 done; 1 the folder cannot be written; 2 usage.

mod expected;
mod matrix;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: kernel_matrix DIR [--tiny] [--cores N]";

fn main() -> ExitCode {
    let mut folder = None;
    let (mut tiny, mut cores) = (false, 132);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--tiny" => tiny = true,
            "--cores" => match words.next().and_then(|word| word.parse().ok()).filter(|cores| *cores > 0) {
                Some(number) => cores = number,
                None => return usage("--cores wants a number from 1"),
            },
            _ if !word.starts_with('-') && folder.is_none() => folder = Some(PathBuf::from(word)),
            _ => return usage(&format!("unknown: {word}")),
        }
    }
    let Some(folder) = folder else { return usage("which folder?") };
    match matrix::write(&folder, tiny, cores) {
        Ok(kernels) => {
            println!("{}: {kernels} kernels", folder.display());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("kernel_matrix: {message}");
            ExitCode::from(1)
        }
    }
}

fn usage(message: &str) -> ExitCode {
    eprintln!("kernel_matrix: {message}\n{USAGE}");
    ExitCode::from(2)
}
