//! `bench`: the keys of its JSON, and figures that agree with each other.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{finish, keys, program, run, sample, word};
use serde_json::Value;
use std::fs;

pub const TESTS: &[Test] = &[
    ("wrong_arguments_are_2", Nothing, wrong_arguments_are_2),
    ("training_and_inference_have_the_documented_keys", Device, training_and_inference_have_the_documented_keys),
    ("without_timestamps_layers_are_empty", Device, without_timestamps_layers_are_empty),
    ("text_shows_every_layer_and_direction", Device, text_shows_every_layer_and_direction),
    ("roofline_and_sweep_are_added_when_asked_for", Device, roofline_and_sweep_are_added_when_asked_for),
    ("robust_access_can_be_left_out", Device, robust_access_can_be_left_out),
    ("what_does_not_fit_the_device_is_5", Device, what_does_not_fit_the_device_is_5),
];

const KEYS: [&str; 15] = [
    "adapter",
    "driver",
    "model",
    "mode",
    "batch_size",
    "precision",
    "images_per_s",
    "ms_per_step",
    "gflops",
    "first_step_s",
    "peak_gpu_bytes",
    "layers",
    "matrix_units",
    "compile_s",
    "host_ms_per_step",
];

fn wrong_arguments_are_2() {
    let lines: &[&[&str]] = &[
        &["--model", "vgg"],
        &["--batch-size", "0"],
        &["--steps", "0"],
        &["--mode", "validate"],
        &["--precision", "f64"],
        &["--batch-sizes", "1,2"],
        &["--sweep", "x.svg", "--batch-sizes", "1,0"],
        &["--image-size", "2"],
    ];
    for line in lines {
        let ran = run(&[&["bench"], *line].concat());
        assert_eq!(ran.code, Some(2), "{line:?}: {ran}");
        assert!(ran.stdout.is_empty() && ran.stderr.contains("error: "), "{line:?}: {ran}");
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value} is no text"))
}

/// A quick run, quiet, and what holds of every document.
fn measure(arguments: &[&str]) -> Value {
    let ran = run(&[&["bench", "-q", "--json", "--batch-size", "3", "--steps", "4"], arguments].concat()).done();
    assert_eq!(ran.stderr, "", "{ran}");
    let json = ran.json();
    assert_eq!(keys(&json)[..KEYS.len()], KEYS);
    assert!(!text(&json, "adapter").is_empty() && !text(&json, "driver").is_empty());
    assert_eq!((text(&json, "model"), text(&json, "precision"), &json["batch_size"]), ("nin-small", "f32", &Value::from(3)));
    let step = &json["ms_per_step"];
    assert_eq!(keys(step), ["median", "p10", "p90"]);
    let [median, p10, p90] = ["median", "p10", "p90"].map(|key| number(&step[key]));
    assert!(0.0 < p10 && p10 <= median && median <= p90, "{step}");
    let expected = 3.0 / median * 1e3;
    assert!((number(&json["images_per_s"]) / expected - 1.0).abs() < 1e-6, "{json}");
    assert_eq!(json["matrix_units"], Value::Bool(false), "is this a device with matrix units that multiply f32?");
    for key in ["gflops", "first_step_s", "compile_s", "host_ms_per_step"] {
        assert!(number(&json[key]) > 0.0, "{key}: {json}");
    }
    assert!(number(&json["compile_s"]) <= number(&json["first_step_s"]), "{json}");
    assert!(number(&json["first_step_s"]) * 1e3 > p10 / 2.0 && json["peak_gpu_bytes"].as_u64() > Some(300_000), "{json}");
    json
}

/// Milliseconds of all layers; every entry is whole.
fn sum_of_layers(json: &Value) -> f64 {
    let layers = json["layers"].as_array().unwrap();
    for layer in layers {
        assert_eq!(keys(layer), ["name", "pass", "ms", "gflops", "kernel"]);
        let mut kernels = text(layer, "kernel").split(" + ");
        assert!(kernels.all(|name| name.split("::").filter(|part| !part.is_empty()).count() == 2), "{layer}");
        assert!(number(&layer["ms"]) >= 0.0 && number(&layer["gflops"]) >= 0.0, "{layer}");
    }
    layers.iter().map(|layer| number(&layer["ms"])).sum()
}

fn has_timestamps() -> bool {
    let devices = run(&["devices", "--json"]).done().json();
    devices[0]["features"].as_array().unwrap().iter().any(|feature| feature == "TIMESTAMP_QUERY")
}

fn training_and_inference_have_the_documented_keys() {
    let has_timestamps = has_timestamps();
    // Multiply-adds of the three directions in a training step; the first layer has no input gradient.
    let macs = |image: f64, first: f64, is_training: bool| if is_training { 3.0 * image - first } else { image };
    for mode in ["train", "infer"] {
        let json = measure(&["--mode", mode]);
        assert_eq!((keys(&json).len(), text(&json, "mode")), (KEYS.len(), mode));
        let summary = run(&["summary", "--model", "nin-small", "--json"]).done().json();
        let gigaflops = 2.0 * 3.0 * macs(number(&summary["macs"]), number(&summary["layers"][0]["macs"]), mode == "train") * 1e-9;
        let expected = gigaflops / number(&json["ms_per_step"]["median"]) * 1e3;
        assert!((number(&json["gflops"]) / expected - 1.0).abs() < 1e-6, "{expected}: {json}");
        if !has_timestamps {
            assert_eq!(json["layers"], Value::Array(Vec::new()));
            continue;
        }
        // The machine may be busy with something else at one of the two times.
        let (sum, step) = (sum_of_layers(&json), number(&json["ms_per_step"]["median"]));
        assert!(sum > step / 20.0 && sum < step * 20.0, "layers {sum} ms, step {step} ms");
        let kernel_of = |name: &str, pass: &str| {
            let layers = json["layers"].as_array().unwrap();
            layers.iter().find(|layer| text(layer, "name") == name && text(layer, "pass") == pass).map(|layer| text(layer, "kernel"))
        };
        let forward = kernel_of("2.2", "forward").unwrap();
        assert!(forward.contains("conv2d_") && forward.ends_with("::forward"), "{forward}");
        if mode == "train" {
            let weight = kernel_of("2.2", "backward_weight").unwrap();
            assert!(weight.contains("::backward_weight + conv2d_reduce::"), "{weight}");
            assert!(kernel_of("all parameters", "update").is_some());
        }
        let passes: Vec<&str> = json["layers"].as_array().unwrap().iter().map(|layer| text(layer, "pass")).collect();
        for pass in ["forward", "backward", "backward_input", "backward_weight", "update"] {
            assert_eq!(passes.contains(&pass), mode == "train" || pass == "forward", "{pass} in {mode}");
        }
    }
}

fn without_timestamps_layers_are_empty() {
    let bench = |arguments: &[&str]| {
        let arguments = [&["bench", "--mode", "infer", "--batch-size", "1", "--steps", "1"], arguments].concat();
        finish(&program(&arguments).env("NIN_WGPU_DEFAULT_LIMITS", "1").output().unwrap()).done()
    };
    let ran = bench(&["--json"]);
    assert_eq!(ran.json()["layers"], Value::Array(Vec::new()));
    assert!(ran.stderr.contains("no timestamps"), "{ran}");
    let ran = bench(&[]);
    assert!(ran.stdout.contains("Conv2d") && ran.stderr.contains("no timestamps"), "{ran}");
}

fn robust_access_can_be_left_out() {
    let bench = |value: &str| {
        let line = ["bench", "--json", "--mode", "infer", "--batch-size", "2", "--steps", "2"];
        finish(&program(&line).env("NIN_WGPU_ROBUST_ACCESS", value).output().unwrap())
    };
    let unknown = bench("no").fails(2);
    assert!(unknown.contains("NIN_WGPU_ROBUST_ACCESS=no is not one of: on, off"), "{unknown}");
    assert!(bench("on").done().json().get("robust_access").is_none());
    let backend = run(&["devices", "--json"]).done().json()[0]["backend"].clone();
    let ran = bench("off");
    if backend != "vulkan" {
        assert!(ran.fails(1).contains("only Vulkan"), "{ran}");
        return;
    }
    assert_eq!(ran.done().json()["robust_access"], false);
    let answer =
        |value: &str| finish(&program(&["infer", "--json", &sample()]).env("NIN_WGPU_ROBUST_ACCESS", value).output().unwrap()).done();
    assert_eq!(answer("off").json(), answer("on").json());
}

fn text_shows_every_layer_and_direction() {
    let ran = run(&["bench", "--batch-size", "2", "--steps", "1"]).done();
    assert!(ran.stderr.contains("measuring training of nin-small"), "{ran}");
    let has_row = |cells: &[&str]| ran.stdout.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().starts_with(cells));
    for cells in [
        &["0.0", "Conv2d", "forward"][..],
        &["0.0", "Conv2d", "backward_weight"],
        &["2.2", "Conv2d", "backward_input"],
        &["1", "MaxPool2d", "backward"],
        &["all", "parameters", "update"],
    ] {
        assert!(has_row(cells), "{cells:?}: {ran}");
    }
    assert!(!has_row(&["0.0", "Conv2d", "backward_input"]), "{ran}");
}

fn roofline_and_sweep_are_added_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("sweep.svg");
    // The pictures of the last size take 4 GiB: over what any binding may hold.
    let json =
        measure(&["--mode", "infer", "--image-size", "64", "--roofline", "--sweep", &word(&picture), "--batch-sizes", "2,1,1048576"]);
    assert_eq!(keys(&json)[KEYS.len()..], ["roofline", "sweep"]);
    let best = &json["roofline"];
    assert_eq!(keys(best), ["gflops", "cached_gb_per_s", "gb_per_s"]);
    assert!(number(&best["gflops"]) > 0.1, "{best}");
    assert!(number(&best["cached_gb_per_s"]) > 0.01 && number(&best["gb_per_s"]) > 0.01, "{best}");
    let sizes = json["sweep"].as_array().unwrap();
    assert_eq!(sizes.iter().map(|size| size["batch_size"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for size in sizes {
        assert_eq!(keys(size), ["batch_size", "images_per_s", "ms_per_step"]);
        assert_eq!(keys(&size["ms_per_step"]), ["median", "p10", "p90"]);
        assert!(number(&size["images_per_s"]) > 0.0);
    }
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("images per second"), "{svg}");

    let missing = word(folder.path().join("missing/sweep.svg"));
    let error = run(&["bench", "--sweep", &missing]).fails(1);
    assert!(error.contains("missing"), "{error}");
}

fn what_does_not_fit_the_device_is_5() {
    for mode in ["train", "infer"] {
        for line in [&["--model", "nin", "--batch-size", "1048576"][..], &["--image-size", "8192", "--batch-size", "1"]] {
            let error = run(&[&["bench", "-q", "--mode", mode], line].concat()).fails(5);
            assert!(error.contains("limit"), "{error}");
        }
    }
}
