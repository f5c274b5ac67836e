//! `nin-wgpu summary` as others parse it.

use serde_json::Value;
use std::process::Command;

fn summary(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nin-wgpu")).arg("summary").args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&summary(&[arguments, &["--json"]].concat())).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn shape(value: &Value) -> String {
    let dims: Vec<String> = value.as_array().unwrap().iter().map(ToString::to_string).collect();
    dims.join("x")
}

/// Whether `wanted` occurs in `all` in this order, with anything in between.
fn is_subsequence(wanted: &[&str], all: &[String]) -> bool {
    let mut all = all.iter();
    wanted.iter().all(|shape| all.any(|other| other == shape))
}

const D2L: [&str; 10] = ["96x54x54", "96x26x26", "256x26x26", "256x12x12", "384x12x12", "384x5x5", "384x5x5", "10x5x5", "10x1x1", "10"];

#[test]
fn json_of_nin_is_what_d2l_prints() {
    let nin = json(&["--model", "nin"]);
    assert_eq!(keys(&nin), ["model", "input", "layers", "params", "macs", "memory"]);
    assert_eq!((nin["model"].as_str(), shape(&nin["input"])), (Some("nin"), "1x224x224".into()));
    assert_eq!(nin["params"], 1_992_166);
    let layers = nin["layers"].as_array().unwrap();
    let outputs: Vec<String> = layers.iter().map(|layer| shape(&layer["output"])).collect();
    assert!(is_subsequence(&D2L, &outputs), "{outputs:?}");
    // Leaf modules of d2l's nested Sequential; each block is conv, relu, three times.
    let mut expected = Vec::new();
    for (index, kind) in
        ["", "MaxPool2d", "", "MaxPool2d", "", "MaxPool2d", "Dropout", "", "AdaptiveAvgPool2d", "Flatten"].iter().enumerate()
    {
        if kind.is_empty() {
            expected.extend((0..6).map(|leaf| (format!("{index}.{leaf}"), if leaf % 2 == 0 { "Conv2d" } else { "ReLU" }.to_string())));
        } else {
            expected.push((index.to_string(), (*kind).to_string()));
        }
    }
    let text = |layer: &Value, key: &str| layer[key].as_str().unwrap().to_string();
    let found: Vec<(String, String)> = layers.iter().map(|layer| (text(layer, "name"), text(layer, "type"))).collect();
    assert_eq!(found, expected);
}

#[test]
fn layers_have_the_documented_keys_and_add_up() {
    for model in ["nin", "nin-cifar", "nin-imagenet", "nin-small"] {
        let summary = json(&["--model", model]);
        let mut sums = (0, 0);
        for layer in summary["layers"].as_array().unwrap() {
            let kind = layer["type"].as_str().unwrap();
            let base = ["name", "type", "output", "params", "macs"];
            let window = ["kernel", "stride", "padding"];
            let expected: Vec<&str> = match kind {
                "Conv2d" => [&base[..], &window].concat(),
                "MaxPool2d" | "AvgPool2d" => [&base[..], &window, &["ceil_mode"]].concat(),
                "ReLU" | "Dropout" | "AdaptiveAvgPool2d" | "Flatten" => base.to_vec(),
                other => panic!("{model}: type {other}"),
            };
            assert_eq!(keys(layer), expected, "{model} {layer}");
            let (params, macs) = (layer["params"].as_u64().unwrap(), layer["macs"].as_u64().unwrap());
            assert_eq!(kind == "Conv2d", params > 0 && macs > 0, "{model} {layer}");
            sums = (sums.0 + params, sums.1 + macs);
        }
        assert_eq!((summary["params"].as_u64(), summary["macs"].as_u64()), (Some(sums.0), Some(sums.1)), "{model}");
        assert_eq!(keys(&summary["memory"]), ["train_bytes", "infer_bytes"]);
        let bytes = |key: &str| summary["memory"][key].as_u64().unwrap();
        assert!(bytes("infer_bytes") > sums.0 * 4 && bytes("train_bytes") > bytes("infer_bytes"), "{model}");
    }
}

#[test]
fn published_sizes_of_the_other_models() {
    // Caffe's cifar10_nin and nin_imagenet prototxt files.
    for (model, params, first, last) in [("nin-cifar", 966_986, "192x32x32", "10"), ("nin-imagenet", 7_595_176, "96x54x54", "1000")] {
        let summary = json(&["--model", model]);
        let layers = summary["layers"].as_array().unwrap();
        assert_eq!(summary["params"], params, "{model}");
        assert_eq!((shape(&layers[0]["output"]).as_str(), shape(&layers.last().unwrap()["output"]).as_str()), (first, last), "{model}");
    }
    let cifar = json(&["--model", "nin-cifar"]);
    let pools: Vec<(String, String, bool)> = cifar["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|layer| layer.get("ceil_mode").is_some())
        .map(|layer| (layer["type"].as_str().unwrap().into(), shape(&layer["output"]), layer["ceil_mode"].as_bool().unwrap()))
        .collect();
    assert_eq!(pools, [("MaxPool2d".into(), "96x16x16".into(), true), ("AvgPool2d".into(), "192x8x8".into(), true)]);
}

#[test]
fn text_has_a_line_per_block() {
    let text = summary(&["--model", "nin"]);
    let outputs: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|line| line.split_whitespace().nth(2).map(str::to_string))
        .collect();
    assert_eq!(outputs, D2L, "{text}");
    let places: Vec<usize> = D2L
        .iter()
        .scan(0, |from, shape| {
            let at = *from + text[*from..].find(shape)?;
            *from = at + 1;
            Some(at)
        })
        .collect();
    assert_eq!(places.len(), D2L.len());
    assert!(text.contains("1,992,166"), "{text}");
}

#[test]
fn flags_adapt_a_model() {
    let adapted = json(&["--model", "nin", "--classes", "100", "--in-channels", "3", "--image-size", "96", "--batch-size", "4"]);
    let layers = adapted["layers"].as_array().unwrap();
    assert_eq!((shape(&adapted["input"]), shape(&layers.last().unwrap()["output"])), ("3x96x96".into(), "100".into()));
    assert_eq!(layers[0]["params"], (3 * 121 + 1) * 96);
    let one = json(&["--model", "nin-small"]);
    let many = json(&["--model", "nin-small", "--batch-size", "64"]);
    assert_eq!(one["macs"], many["macs"]);
    assert!(many["memory"]["train_bytes"].as_u64() > one["memory"]["train_bytes"].as_u64());
}
