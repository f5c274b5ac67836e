//! `--precision mixed` and `--save-dtype f16`: what a run learns, its files, and where it cannot run.

use crate::Needs::{Device, Half, MatrixUnits};
use crate::Test;
use crate::support::{Ran, finish, has_matrix_units, keys, metrics, mini_fashion, program, run, sample, small_run, tensors, word};
use std::fs;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("mixed_learns_as_f32_does", Half, mixed_learns_as_f32_does),
    ("a_mixed_run_repeats_and_goes_on_exactly", Half, a_mixed_run_repeats_and_goes_on_exactly),
    ("mixed_answers_as_f32_does", Half, mixed_answers_as_f32_does),
    ("bench_measures_mixed", Half, bench_measures_mixed),
    ("without_f16_mixed_is_5_and_says_what_is_missing", Device, without_f16_mixed_is_5_and_says_what_is_missing),
    ("kernels_for_matrix_units_learn_alike", Half, kernels_for_matrix_units_learn_alike),
    ("the_drivers_matrix_units_learn_alike", MatrixUnits, the_drivers_matrix_units_learn_alike),
    ("the_drivers_matrix_units_pass_check", MatrixUnits, the_drivers_matrix_units_pass_check),
    ("what_computes_wrongly_is_left_out_with_a_warning", Half, what_computes_wrongly_is_left_out_with_a_warning),
    ("matrix_units_that_end_their_process_cost_a_warning", Half, matrix_units_that_end_their_process_cost_a_warning),
    ("matrix_units_that_end_their_process_fail_the_check", Half, matrix_units_that_end_their_process_fail_the_check),
    ("weights_in_half_precision_are_half_as_large", Device, weights_in_half_precision_are_half_as_large),
];

fn number(line: &serde_json::Value, key: &str) -> f64 {
    line[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {line}"))
}

fn mixed_learns_as_f32_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| word(folder.path().join(name));
    let data = mini_fashion();
    let train = |precision: &str| {
        let more = ["--limit-train", "1500", "--limit-test", "500", "--log-every", "10", "--precision", precision, "--out", &at(precision)];
        // Adam at its small rate leaves the plateau at the start by itself; at the recipe's rate rounding decides when a run
        // leaves it, and two runs in f32 with other kernels lie as far apart.
        run(&small_run(&data, &[&more[..], &["--optimizer", "adam", "--schedule", "constant", "--warmup-epochs", "0"]].concat())).done();
        metrics(&folder.path().join(precision))
    };
    let (single, mixed) = (train("f32"), train("mixed"));
    let epochs = |lines: &[serde_json::Value]| lines.iter().filter(|line| line.get("train_loss").is_some()).cloned().collect::<Vec<_>>();
    let losses = |lines: &[serde_json::Value]| lines.iter().filter_map(|line| line.get("loss")?.as_f64()).collect::<Vec<_>>();
    let (single_losses, mixed_losses) = (losses(&single), losses(&mixed));
    assert!(single_losses.len() >= 8 && single_losses.len() == mixed_losses.len());
    for (one, other) in single_losses.iter().zip(&mixed_losses) {
        assert!((one - other).abs() < 0.02 * one, "{single_losses:?} {mixed_losses:?}");
    }
    assert!(single_losses.last() < Some(&(0.7 * single_losses[0])), "{single_losses:?}");
    let (single, mixed) = (epochs(&single), epochs(&mixed));
    assert_eq!(keys(&single[1]), ["epoch", "train_loss", "train_acc", "test_loss", "test_acc", "seconds"]);
    assert_eq!(keys(&mixed[1])[6..], ["loss_scale", "skipped_steps"]);
    assert!(number(&mixed[1], "loss_scale") >= 1.0 && number(&mixed[1], "skipped_steps") < 20.0, "{}", mixed[1]);
    let (a, b) = (&single[1], &mixed[1]);
    assert!((number(a, "test_acc") - number(b, "test_acc")).abs() < 0.04, "{a} {b}");
    let log = fs::read_to_string(folder.path().join("mixed/train.log")).unwrap();
    assert!(log.contains("loss scale") && log.contains("skipped"), "{log}");
}

/// The configuration of a finished run is lengthened by hand, which may be done, and the run goes on.
fn a_mixed_run_repeats_and_goes_on_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let data = mini_fashion();
    let train = |name: &str, epochs: &str| {
        let out = word(at(name));
        let more = ["--precision", "mixed", "--optimizer", "adam", "--schedule", "constant", "--epochs", epochs, "--out", &out];
        run(&small_run(&data, &more)).done();
    };
    let same = |one: &Path, other: &Path| {
        for file in ["last.safetensors", "best.safetensors"] {
            assert!(fs::read(one.join(file)).unwrap() == fs::read(other.join(file)).unwrap(), "{file} differs");
        }
    };
    train("whole", "2");
    train("again", "2");
    same(&at("whole"), &at("again"));
    train("halved", "1");
    let config = at("halved").join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("precision = \"mixed\"") && text.contains("epochs = 1\n"), "{text}");
    fs::write(&config, text.replace("epochs = 1\n", "epochs = 2\n")).unwrap();
    let manifest = fs::read_to_string(at("halved").join("state/manifest.json")).unwrap();
    assert!(manifest.contains("\"loss_scale\"") && manifest.contains("\"skipped_steps\""), "{manifest}");
    run(&["train", "--resume", &word(at("halved"))]).done();
    // The recipe in the metadata tells how the run was asked for; the numbers are the same.
    assert_eq!(tensors(&at("whole").join("last.safetensors")), tensors(&at("halved").join("last.safetensors")));
    let (whole, halved) = (metrics(&at("whole")), metrics(&at("halved")));
    for (one, other) in whole.iter().zip(&halved) {
        for key in ["loss", "train_loss", "test_loss", "loss_scale", "skipped_steps"] {
            assert_eq!(one.get(key), other.get(key), "{key}: {one} {other}");
        }
    }
    assert_eq!(whole.len(), halved.len());
    let refusal = run(&["train", "--resume", &word(at("halved")), "--precision", "f32"]);
    assert!(refusal.fails(2).contains("--precision"), "{refusal}");
}

fn mixed_answers_as_f32_does() {
    let answer = |precision: &str| run(&["infer", "--json", "--precision", precision, &sample()]).done().json()[0].clone();
    let (single, mixed) = (answer("f32"), answer("mixed"));
    for rank in 0..2 {
        let (a, b) = (&single["predictions"][rank], &mixed["predictions"][rank]);
        assert_eq!(a["class"], b["class"]);
        assert!((number(a, "probability") - number(b, "probability")).abs() < 0.02, "{a} {b}");
    }
    assert_ne!(single, mixed, "were these two precisions?");
    let evaluate = |precision: &str| {
        let weights = word(crate::support::project("assets/nin-small-fashion.safetensors"));
        run(&["eval", "--weights", &weights, "--data", &mini_fashion(), "--limit", "400", "--precision", precision, "--json"]).done().json()
    };
    let (single, mixed) = (evaluate("f32"), evaluate("mixed"));
    assert!((number(&single, "top1") - number(&mixed, "top1")).abs() <= 0.005, "{} {}", single["top1"], mixed["top1"]);
    assert!((number(&single, "loss") - number(&mixed, "loss")).abs() < 0.01, "{} {}", single["loss"], mixed["loss"]);
}

fn bench_measures_mixed() {
    let measure = |precision: &str, mode: &str| {
        let line = ["bench", "-q", "--json", "--batch-size", "16", "--steps", "2", "--precision", precision, "--mode", mode];
        let json = run(&line).done().json();
        assert_eq!(json["precision"], precision);
        assert!(json.get("fallback").is_none(), "{json}");
        number(&json, "peak_gpu_bytes")
    };
    for mode in ["train", "infer"] {
        let share = measure("mixed", mode) / measure("f32", mode);
        assert!((0.4..0.9).contains(&share), "{mode}: {share}");
    }
}

fn without_f16_mixed_is_5_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (word(folder.path().join("run")), mini_fashion());
    for line in [
        small_run(&data, &["--precision", "mixed", "--out", &out]),
        vec!["bench", "--precision", "mixed", "--steps", "1"],
        vec!["infer", "--precision", "mixed", &sample()],
    ] {
        let ran = finish(&program(&line).env("NIN_WGPU_DEFAULT_LIMITS", "1").output().unwrap());
        assert_eq!(ran.code, Some(5), "{ran}");
        let [error] = &ran.errors()[..] else { panic!("not one error: {ran}") };
        assert!(error.contains("SHADER_F16") && error.contains("--precision f32"), "{ran}");
    }
    assert!(!Path::new(&out).exists(), "a run that never began left a folder");
}

/// Losses of a short run with other kernels than `ordinary`'s, which it has to come close to.
fn expect_alike(ordinary: &[f64], others: &[f64]) {
    assert!(ordinary.len() == 3 && ordinary != others, "were these other kernels? {ordinary:?} {others:?}");
    for (one, other) in ordinary.iter().zip(others) {
        assert!((one - other).abs() < 2e-3 * one, "{ordinary:?} {others:?}");
    }
}

/// The losses of a short run in mixed precision that leaves `folder/name`; `units` is for `NIN_WGPU_MATRIX_UNITS`, if anything.
fn mixed_losses(folder: &Path, name: &str, units: Option<&str>) -> Vec<f64> {
    let (out, data) = (folder.join(name), mini_fashion());
    let out_word = word(&out);
    let line = small_run(&data, &["--precision", "mixed", "--lr", "0.005", "--epochs", "1", "--out", &out_word]);
    let mut command = program(&line);
    command.env("NIN_WGPU_CACHE_DIR", folder.join(format!("{name}-cache"))).envs(units.map(|units| ("NIN_WGPU_MATRIX_UNITS", units)));
    let ran = finish(&command.output().unwrap()).done();
    assert!(!ran.stderr.contains("matrix units of"), "they were left out: {ran}");
    metrics(&out).iter().filter_map(|line| line.get("loss")?.as_f64()).collect()
}

/// The whole of a run through the emulation: forward, both gradients, loss scaling, evaluation.
fn kernels_for_matrix_units_learn_alike() {
    let folder = tempfile::tempdir().unwrap();
    let losses = |name, units| mixed_losses(folder.path(), name, Some(units));
    expect_alike(&losses("ordinary", "off"), &losses("emulated", "emulated"));
}

/// The same on the driver's own units, which are proven first.
fn the_drivers_matrix_units_learn_alike() {
    assert!(has_matrix_units(), "no matrix units of the driver's own");
    let folder = tempfile::tempdir().unwrap();
    expect_alike(&mixed_losses(folder.path(), "ordinary", Some("off")), &mixed_losses(folder.path(), "own", None));
    let kept = fs::read_dir(folder.path().join("own-cache")).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let json = kept.filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let proof = json.into_iter().find(|kept| kept.get("proof").is_some()).expect("no proof was kept");
    assert!(proof["units"] == "Eight" || proof["units"] == "Sixteen", "{proof}");
    assert!(proof["proof"]["matrix_units"].is_null() && proof["proof"]["storage"].is_null(), "{proof}");
}

fn the_drivers_matrix_units_pass_check() {
    assert!(has_matrix_units(), "no matrix units of the driver's own");
    let ran = run(&["check", "--quick"]).done();
    assert!(ran.stdout.contains("with matrix units for") && ran.stdout.contains("pass: all"), "{ran}");
}

fn what_computes_wrongly_is_left_out_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (word(folder.path().join("run")), mini_fashion());
    let with_fault = |fault: &str, line: &[&str]| finish(&program(line).env("NIN_WGPU_HALF_FAULT", fault).output().unwrap());
    let bench = ["bench", "--json", "--batch-size", "4", "--steps", "1", "--precision", "mixed"];
    let faults =
        [("matrix_units", "mixed", "matrix units of", "without matrix units: "), ("storage", "f32", "going on in f32", "in f32: ")];
    for (fault, precision, warning, fallback) in faults {
        let ran = with_fault(fault, &bench).done();
        let json = ran.json();
        assert_eq!(json["precision"], precision);
        let why = json["fallback"].as_str().unwrap_or_else(|| panic!("no fallback: {json}"));
        assert!(why.starts_with(fallback) && why.contains("planted by NIN_WGPU_HALF_FAULT"), "{json}");
        assert!(ran.stderr.contains("warning: ") && ran.stderr.contains(warning), "{ran}");
    }
    // A run keeps its precision.
    run(&small_run(&data, &["--precision", "mixed", "--epochs", "1", "--out", &out])).done();
    let ran = with_fault("storage", &["train", "--resume", &out]);
    assert!(ran.fails(8).contains("precision"), "{ran}");
}

/// With kernels for matrix units in emulation, and a fault planted in the process in which they are tried.
fn on_emulated_units(fault: &str, line: &[&str]) -> Ran {
    finish(&program(line).env("NIN_WGPU_MATRIX_UNITS", "emulated").env("NIN_WGPU_HALF_FAULT", fault).output().unwrap())
}

fn matrix_units_that_end_their_process_cost_a_warning() {
    let bench = ["bench", "--json", "--mode", "infer", "--batch-size", "4", "--steps", "1", "--precision", "mixed"];
    let kernels = |json: &serde_json::Value| json["layers"].to_string();
    let has_layers = |json: &serde_json::Value| !json["layers"].as_array().unwrap().is_empty();
    let right = on_emulated_units("", &bench).done();
    let json = right.json();
    assert!(json.get("fallback").is_none() && json["matrix_units"] == false && !right.stderr.contains("warning: "), "{right}");
    assert!(!has_layers(&json) || kernels(&json).contains("conv2d_emulated_"), "{json}");
    let signal = if cfg!(unix) { "(signal 6)" } else { "(" };
    let crashed = format!("the driver ended the process {signal}");
    for (fault, why) in [("matrix_units_crash", crashed.as_str()), ("matrix_units_hang", "the driver did not come back within 2 s")] {
        let ran = on_emulated_units(fault, &bench).done();
        let json = ran.json();
        let warned = ran.stderr.lines().any(|line| line.starts_with("warning: the matrix units of ") && line.contains(why));
        assert!(warned, "{ran}");
        let fallback = json["fallback"].as_str().unwrap_or_else(|| panic!("no fallback: {json}"));
        assert!(fallback.starts_with("without matrix units: ") && fallback.contains(why), "{json}");
        assert_eq!((&json["precision"], &json["matrix_units"]), (&"mixed".into(), &false.into()), "{json}");
        assert!(!kernels(&json).contains("conv2d_emulated_"), "{json}");
    }
    // What is planted is not kept, and text says as much.
    assert!(on_emulated_units("", &bench).done().json().get("fallback").is_none());
    let line: Vec<&str> = bench.into_iter().filter(|word| *word != "--json").collect();
    let text = on_emulated_units("matrix_units_crash", &line).done();
    assert!(text.stdout.lines().any(|line| line.starts_with("fallback") && line.contains(&crashed)), "{text}");
    // Where there are no units, no process tries them.
    let without =
        finish(&program(&bench).env("NIN_WGPU_MATRIX_UNITS", "off").env("NIN_WGPU_HALF_FAULT", "matrix_units_crash").output().unwrap());
    let without = without.done();
    assert!(without.json().get("fallback").is_none() && !without.stderr.contains("warning: "), "{without}");
    let unknown = on_emulated_units("matrix_unit", &bench).fails(2);
    assert!(unknown.contains("NIN_WGPU_HALF_FAULT=matrix_unit is not "), "{unknown}");
}

fn matrix_units_that_end_their_process_fail_the_check() {
    let ran = on_emulated_units("matrix_units_crash", &["check", "--quick"]);
    assert_eq!(ran.code, Some(8), "{ran}");
    assert!(ran.stdout.contains("FAIL matrix units: the driver ended the process ("), "{ran}");
    assert!(ran.stdout.contains("FAIL: 1 of "), "the others are right: {ran}");
    let ran = on_emulated_units("", &["check", "--quick", "--json"]).done();
    let json = ran.json();
    let verdicts = json["verdicts"].as_array().unwrap();
    assert_eq!((&verdicts[0]["layer"], &verdicts[0]["verdict"]), (&"matrix units".into(), &"pass".into()), "{json}");
}

fn weights_in_half_precision_are_half_as_large() {
    let folder = tempfile::tempdir().unwrap();
    let (out, data) = (word(folder.path().join("run")), mini_fashion());
    run(&small_run(&data, &["--epochs", "1", "--save-dtype", "f16", "--out", &out])).done();
    let path = folder.path().join("run/last.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensors().iter().all(|(_, view)| view.dtype() == safetensors::Dtype::F16));
    assert_eq!(file.tensors().iter().map(|(_, view)| view.data().len()).sum::<usize>(), 2 * 71_274);
    let config = fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    assert!(config.contains("save_dtype = \"f16\""), "{config}");
    // The state that a run goes on from is not rounded, and the file serves like any other.
    let state = fs::read_dir(folder.path().join("run/state")).unwrap().map(|entry| entry.unwrap().path());
    let state = state.into_iter().find(|path| path.extension().is_some_and(|e| e == "safetensors")).unwrap();
    let exact = tensors(&state);
    assert!(exact.iter().any(|tensor| tensor.data.iter().any(|v| nin_wgpu::half::round_to_f16(*v) != *v)));
    for rounded in tensors(&path) {
        let exact = exact.iter().find(|tensor| tensor.name == format!("parameter/{}", rounded.name)).unwrap();
        assert!(rounded.data.iter().zip(&exact.data).all(|(a, b)| *a == nin_wgpu::half::round_to_f16(*b)), "{}", rounded.name);
    }
    let answers = run(&["infer", "--json", "--weights", &word(&path), &sample()]).done().json();
    assert_eq!(answers[0]["predictions"].as_array().unwrap().len(), 5);
}
