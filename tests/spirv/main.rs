//! Khronos' `spirv-val` over the SPIR-V of every kernel, as a device of Vulkan 1.3 gets it: with and without matrix units, which
//! change the memory model, and with and without wgpu's run-time checks. Where the tool is missing the tests are reported as
//! ignored, never as passed.
//!
//! `NIN_WGPU_SPIRV_VAL` names the tool; without it, it is the one that `scripts/setup-khronos.sh target/test-tools/khronos`
//! unpacked.

use libtest_mimic::{Arguments, Trial};
use nin_wgpu::gpu::spirv::{Checks, Device, parse, without_needless_layouts, words};
use nin_wgpu::kernels::ALL;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

/// A message that is let pass.
struct Listed {
    /// Part of the message.
    message: &'static str,
    /// Beginning of the names of the kernels that it concerns.
    kernels: &'static str,
    /// How the SPIR-V came about.
    route: Route,
}

/// Every message that is let pass; `listed-messages.tsv` has the reasons.
static LISTED: LazyLock<Vec<Listed>> = LazyLock::new(|| {
    let lines = include_str!("../listed-messages.tsv").lines().filter(|line| !line.starts_with('#'));
    let fields = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    fields
        .filter(|fields| fields[0] == "spirv-val")
        .map(|fields| match (fields.len(), fields[2].split_once(':')) {
            (4, Some(("wgpu", kernels))) => Listed { message: fields[1], kernels, route: Route::Wgpu },
            (4, Some(("product", kernels))) => Listed { message: fields[1], kernels, route: Route::Product },
            _ => panic!("tests/listed-messages.tsv: {fields:?}"),
        })
        .collect()
});

/// Who writes the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    /// wgpu: naga's SPIR-V as it is.
    Wgpu,
    /// The product, which takes needless layouts off.
    Product,
}

/// A module and what spirv-val said of it; nothing where it is valid.
struct Judged {
    kernel: String,
    route: Route,
    message: String,
}

/// Vulkan 1.3 without robust access, so that run-time checks are complete.
const PLAIN: Device =
    Device { version: (1, 6), f16: true, subgroups: true, int64: true, matrices: false, robust_buffers: false, robust_images: false };
const WITH_MATRICES: Device = Device { matrices: true, ..PLAIN };
const ROBUST: Device = Device { robust_buffers: true, robust_images: true, ..PLAIN };

fn main() {
    let arguments = Arguments::from_args();
    let tool = spirv_val();
    if tool.is_none() {
        eprintln!("no spirv-val: every test is reported as ignored");
    }
    let trial = |name: &str, test: fn(&Path) -> Result<(), String>| match tool.clone() {
        Some(tool) => Trial::test(name, move || test(&tool).map_err(Into::into)),
        None => Trial::test(name, || Ok(())).with_ignored_flag(true),
    };
    let trials = vec![
        trial("kernels_are_valid_or_listed", kernels_are_valid_or_listed),
        trial("every_listed_message_occurs", every_listed_message_occurs),
        trial("faults_are_found", faults_are_found),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// The tool, where this machine has it.
fn spirv_val() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/khronos/spirv-val");
    let tool = std::env::var_os("NIN_WGPU_SPIRV_VAL").filter(|path| !path.is_empty()).map_or(unpacked, PathBuf::from);
    tool.is_file().then_some(tool)
}

/// What spirv-val says of a module, on one line; nothing where it is valid.
fn judge(tool: &Path, words: &[u32]) -> Result<String, String> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut child = Command::new(tool)
        .args(["--target-env", "vulkan1.3", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", tool.display()))?;
    // Dropped at the end of the statement, which ends the input.
    child.stdin.take().ok_or("no standard input")?.write_all(&bytes).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = [output.stdout, output.stderr].concat();
    let message = String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    match (output.status.success(), message.is_empty()) {
        (true, _) => Ok(message),
        (false, false) => Ok(message),
        (false, true) => Err(format!("{} failed without a message: {}", tool.display(), output.status)),
    }
}

/// Every kernel on every kind of device that may be given it.
fn judge_all(tool: &Path) -> Result<Vec<Judged>, String> {
    let sources: BTreeMap<_, _> = ALL.iter().map(|kernel| (kernel.module, kernel.source)).collect();
    let modules: BTreeMap<_, _> =
        sources.into_par_iter().map(|(name, source)| Ok((name, parse(name, source)?))).collect::<Result<_, String>>()?;
    let cases: Vec<_> = ALL
        .iter()
        .flat_map(|kernel| [("plain", PLAIN), ("matrices", WITH_MATRICES), ("robust", ROBUST)].map(|device| (*kernel, device)))
        .filter(|(kernel, (_, device))| device.matrices || !kernel.matrices)
        .flat_map(|case| {
            [(Checks::None, Route::Product), (Checks::None, Route::Wgpu), (Checks::All, Route::Wgpu)].map(|route| (case, route))
        })
        .collect();
    let judged = cases.into_par_iter().map(|((kernel, (device_name, device)), (checks, route))| {
        let (module, info) = &modules[kernel.module];
        let mut words = words(module, info, kernel.entry, &device, checks)?;
        if route == Route::Product {
            words = without_needless_layouts(&words);
        }
        let name = format!("{} ({device_name}, checks: {checks:?}, by {route:?})", kernel.name());
        Ok(Judged { message: judge(tool, &words)?, kernel: name, route })
    });
    judged.collect()
}

static ALL_JUDGED: LazyLock<Arc<Result<Vec<Judged>, String>>> =
    LazyLock::new(|| Arc::new(spirv_val().ok_or_else(|| "no spirv-val".to_string()).and_then(|tool| judge_all(&tool))));

fn concerns(listed: &Listed, judged: &Judged) -> bool {
    judged.route == listed.route && judged.kernel.starts_with(listed.kernels) && judged.message.contains(listed.message)
}

fn kernels_are_valid_or_listed(_: &Path) -> Result<(), String> {
    let all = ALL_JUDGED.as_ref().as_ref()?;
    let modules: BTreeSet<&str> = all.iter().filter_map(|judged| judged.kernel.split("::").next()).collect();
    if modules.len() < 70 {
        return Err(format!("only {} shaders were read", modules.len()));
    }
    let said: Vec<String> = all
        .iter()
        .filter(|judged| !judged.message.is_empty() && !LISTED.iter().any(|listed| concerns(listed, judged)))
        .map(|judged| format!("{}: {}", judged.kernel, judged.message))
        .collect();
    let listed = all.iter().filter(|judged| !judged.message.is_empty()).count() - said.len();
    println!("{} modules, {listed} of them with listed messages only", all.len());
    if said.is_empty() { Ok(()) } else { Err(format!("{} of {}:\n{}", said.len(), all.len(), said.join("\n"))) }
}

fn every_listed_message_occurs(_: &Path) -> Result<(), String> {
    let all = ALL_JUDGED.as_ref().as_ref()?;
    match LISTED.iter().find(|listed| !all.iter().any(|judged| concerns(listed, judged))) {
        None => Ok(()),
        Some(listed) => Err(format!("no kernel '{}*' has \"{}\" any more: take it off the list", listed.kernels, listed.message)),
    }
}

/// Faults that were once in the kernels, and that neither naga nor wgpu mind.
fn faults_are_found(tool: &Path) -> Result<(), String> {
    let entry = "@compute @workgroup_size(1) fn main()";
    let layout = format!(
        "struct Pair {{ a: u32, b: u32 }}
        @group(0) @binding(0) var<storage, read_write> y: array<u32>;
        {entry} {{ var pair = Pair(); for (var i = 0u; i < y[1]; i++) {{ pair.a += i; }} y[0] = pair.a; }}"
    );
    let coordinates = format!(
        "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
        @group(0) @binding(1) var x: texture_2d<f32>;
        {entry} {{ y[0] = textureLoad(x, vec2<u32>(u32(y[1]), 3u), 0).x; }}"
    );
    let workgroup = format!(
        "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
        var<workgroup> tile: array<f32, 64>;
        {entry} {{ tile[u32(y[1])] = 1.0; y[0] = tile[3]; }}"
    );
    let cases = [
        ("a struct in a function", &layout, Checks::None, Some("10684")),
        ("unsigned coordinates", &coordinates, Checks::All, Some("OpConstantComposite")),
        ("unsigned coordinates without checks", &coordinates, Checks::None, None),
        ("an array in workgroup memory", &workgroup, Checks::None, Some("10684")),
    ];
    for (name, source, checks, expected) in cases {
        let (module, info) = parse(name, source)?;
        let made = words(&module, &info, "main", &PLAIN, checks)?;
        let message = judge(tool, &made)?;
        let as_expected = expected.map_or(message.is_empty(), |part| message.contains(part));
        if !as_expected {
            return Err(format!("{name}: expected {expected:?}, got '{message}'"));
        }
        if expected == Some("10684") {
            let message = judge(tool, &without_needless_layouts(&made))?;
            if !message.is_empty() {
                return Err(format!("{name}, without needless layouts: {message}"));
            }
        }
    }
    Ok(())
}
