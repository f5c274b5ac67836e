//! Running the program, and making the files it is given.

use nin_wgpu::kernels::MatrixUnits;
use nin_wgpu::weights::{NamedTensor, load};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// What a run of the program came to.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program: `NIN_WGPU_TEST_PROGRAM` where it takes another copy to run with a driver (`scripts/setup-lavapipe.sh`).
pub fn program_path() -> OsString {
    std::env::var_os("NIN_WGPU_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_nin-wgpu").into())
}

/// The program with arguments, away from the user's settings; adapters stay as they are.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(program_path());
    command.args(arguments).stdin(Stdio::null()).env_remove("NIN_WGPU_DATA").env("RUST_BACKTRACE", "1");
    command.env("NIN_WGPU_CACHE_DIR", cache_folder());
    command
}

/// Runs the program.
pub fn run(arguments: &[&str]) -> Ran {
    finish(&program(arguments).output().unwrap())
}

/// Runs the program with bytes on its standard input.
pub fn run_with_stdin(arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = program(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Programs may stop reading early; that is theirs to judge.
    let _ = stdin.write_all(input);
    drop(stdin);
    finish(&child.wait_with_output().unwrap())
}

/// Checks what holds of every run: no panic, no backtrace, and errors of one line.
pub fn finish(output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    for forbidden in ["panicked", "stack backtrace", "RUST_BACKTRACE", "internal error", "thread '"] {
        assert!(!ran.stdout.contains(forbidden) && !ran.stderr.contains(forbidden), "{ran}");
    }
    ran
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Ran {
    /// Expects success.
    pub fn done(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self}");
        assert_eq!(self.errors().len(), 0, "{self}");
        self
    }

    /// Expects a failure with this code, said in one line; returns that line. What clap refuses takes more lines: that belongs into
    /// `usage_errors_are_2`.
    pub fn fails(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        let errors = self.errors();
        assert_eq!(errors.len(), 1, "{self}");
        let rest: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with("note: ") && !line.starts_with("error: ")).collect();
        assert!(rest.is_empty(), "lines beside the error: {rest:?}\n{self}");
        errors[0].clone()
    }

    /// The lines on stderr that say what went wrong.
    pub fn errors(&self) -> Vec<String> {
        self.stderr.lines().filter(|line| line.starts_with("error:")).map(str::to_string).collect()
    }

    /// The one JSON document on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }
}

/// Whether kernels are to use matrix units that only proofs may use.
pub fn are_matrix_units_asked_for() -> bool {
    std::env::var("NIN_WGPU_MATRIX_UNITS").is_ok_and(|units| units == "small-subgroups")
}

/// Whether the adapter that the program chooses has matrix units that kernels use, not their emulation.
pub fn has_matrix_units() -> bool {
    let probed = nin_wgpu::gpu::probe(None);
    probed.is_ok_and(|(_, target)| matches!(target.matrix_units, MatrixUnits::Sixteen | MatrixUnits::Eight))
}

/// Keys of a JSON object, in order.
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value} is no object")).keys().map(String::as_str).collect()
}

/// A path within the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A path as an argument.
pub fn word(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_string()
}

/// The bundled part of Fashion-MNIST.
pub fn mini_fashion() -> String {
    word(project("assets/fashion-mnist-mini"))
}

/// A picture of the bundled samples.
pub fn sample() -> String {
    word(project("assets/samples/test-00000-ankle-boot.png"))
}

/// Arguments of a small training run, without `--out`.
pub fn small_run<'a>(data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--model", "nin-small", "--data", data];
    for (flag, value) in [("--limit-train", "96"), ("--limit-test", "64"), ("--epochs", "2"), ("--batch-size", "32"), ("--log-every", "1")]
    {
        if !more.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(more);
    arguments
}

/// Where the runs of this test binary keep their caches.
pub fn cache_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gpu_cli-cache-{}", std::process::id()))
}

/// Where [`finished_run`] lies.
fn shared_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gpu_cli-{}", std::process::id()))
}

/// The folder of a finished small run that several tests look at; none of them changes it.
pub fn finished_run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = shared_folder();
        let _ = fs::remove_dir_all(&folder);
        run(&small_run(&mini_fashion(), &["--out", &word(&folder)])).done();
        folder
    })
}

/// Removes what [`finished_run`] and the caches left, behind the last test.
pub fn clean_up() {
    let _ = fs::remove_dir_all(cache_folder());
    let _ = fs::remove_dir_all(shared_folder());
}

/// The lines of a run's `metrics.jsonl`.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Tensors of a weight file.
pub fn tensors(path: &Path) -> Vec<NamedTensor> {
    load(path).unwrap().tensors
}

/// A safetensors file from its JSON header and its data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Header and data of the embedded weights.
pub fn embedded_parts() -> (Value, Vec<u8>) {
    let bytes = fs::read(project("assets/nin-small-fashion.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

/// A PNG of grey noise without structure, from its width and height.
pub fn grey_png(path: &Path, width: u32, height: u32, seed: u32) {
    let picture = image::GrayImage::from_fn(width, height, |x, y| {
        let mixed = (x + 31 * y + 997 * seed).wrapping_mul(2_654_435_761);
        image::Luma([(mixed >> 24) as u8])
    });
    picture.save_with_format(path, image::ImageFormat::Png).unwrap();
}

/// The beginning of a PNG that announces a size: a whole header, hardly any pixels.
pub fn announced_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 6, 0, 0, 0]);
    let mut pixels = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    pixels.write_all(&[0; 4096]).unwrap();
    let pixels = pixels.finish().unwrap();
    for (kind, data) in [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", Vec::new())] {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(&data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(kind);
        png.extend(&data);
        png.extend(crc.sum().to_be_bytes());
    }
    png
}

/// A record of CIFAR-10's binary files.
pub fn cifar_record(label: u8) -> Vec<u8> {
    let mut record = vec![label];
    record.extend((0..3072u32).map(|i| (i.wrapping_mul(2_654_435_761 + u32::from(label)) >> 24) as u8));
    record
}
