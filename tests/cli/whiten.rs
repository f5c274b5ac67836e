//! Whitening: its file goes with the weights, and nothing is answered without it.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{finish, program, run, tensors, word};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

pub const TESTS: &[Test] = &[
    ("a_whitened_run_from_training_to_answers", Device, a_whitened_run_from_training_to_answers),
    ("what_whitening_cannot_do_is_a_usage_error", Nothing, what_whitening_cannot_do_is_a_usage_error),
];

/// Colour pictures of 12x12, bright above and bright below.
fn pictures(folder: &Path) -> PathBuf {
    let data = folder.join("pictures");
    for (split, count) in [("train", 24u32), ("test", 6)] {
        for (class, name) in ["above", "below"].iter().enumerate() {
            let place = data.join(split).join(name);
            fs::create_dir_all(&place).unwrap();
            for number in 0..count {
                let picture = image::RgbImage::from_fn(12, 12, |x, y| {
                    let noise =
                        |channel: u32| ((x + 17 * y + 311 * channel + 7919 * (number + count)).wrapping_mul(2_654_435_761) >> 25) as u8;
                    let light = if (y < 6) == (class == 0) { 100 } else { 10 };
                    image::Rgb([light + noise(0), light + noise(1) / 2, light + noise(2)])
                });
                picture.save(place.join(format!("{number}.png"))).unwrap();
            }
        }
    }
    data
}

fn training<'a>(data: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let flags =
        ["train", "--model", "nin-small", "--data", data, "--image-size", "12", "--batch-size", "8", "--epochs", "3", "--whiten", "zca"];
    [&flags[..], &["--checkpoint-every", "2", "--log-every", "1", "--shift", "2", "--flip", "--cutout", "3", "--out", out], more].concat()
}

fn a_whitened_run_from_training_to_answers() {
    let folder = tempfile::tempdir().unwrap();
    let data = word(pictures(folder.path()));
    let at = |name: &str| folder.path().join(name);
    let out = word(at("plain"));
    let ran = run(&training(&data, &out, &[])).done();
    assert!(ran.stderr.contains("computing the whitening of 48 images of 3x12x12"), "{ran}");
    let whitening = at("plain/whitening.safetensors");
    let shapes: Vec<_> = tensors(&whitening).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    assert_eq!(shapes, [("mean".to_string(), vec![3, 12, 12]), ("matrix".to_string(), vec![432, 432])]);
    assert!(fs::read_to_string(at("plain/config.toml")).unwrap().contains("whiten = \"zca\""));
    assert!(at("plain/report.html").exists(), "{ran}");

    // The device is lost between two checkpoints: the run goes on from its files to the same weights.
    let lost = word(at("lost"));
    finish(&program(&training(&data, &lost, &["--no-report"])).env("NIN_WGPU_LOSE_DEVICE_AT", "7").output().unwrap()).done();
    for file in ["last.safetensors", "whitening.safetensors"] {
        assert!(fs::read(at("plain").join(file)).unwrap() == fs::read(at("lost").join(file)).unwrap(), "{file} differs");
    }

    // Eval and infer see the same.
    let best = word(at("plain/best.safetensors"));
    let evaluated = run(&["eval", "--weights", &best, "--data", &data, "--json"]).done().json();
    let test = word(at("pictures/test"));
    let answers = run(&["infer", "--weights", &best, &test, "--json"]).done().json();
    let loss = |answer: &Value| {
        let class = if answer["image"].as_str().unwrap().contains("above") { "above" } else { "below" };
        let predictions = answer["predictions"].as_array().unwrap();
        -predictions.iter().find(|p| p["class"] == class).unwrap()["probability"].as_f64().unwrap().ln()
    };
    let answers = answers.as_array().unwrap();
    let mean = answers.iter().map(loss).sum::<f64>() / answers.len() as f64;
    assert_eq!(answers.len(), 12);
    assert!((mean - evaluated["loss"].as_f64().unwrap()).abs() < 1e-4, "{mean} by infer, {evaluated} by eval");

    // Without their whitening, or with another, weights answer nothing.
    let moved = at("moved");
    fs::create_dir(&moved).unwrap();
    fs::copy(&best, moved.join("w.safetensors")).unwrap();
    let moved_weights = word(moved.join("w.safetensors"));
    let infer = |weights: &str| run(&["infer", "--weights", weights, &test, "--json"]);
    let error = infer(&moved_weights).fails(6);
    assert!(error.contains("whitening.safetensors: is missing") && error.contains("copy it from the folder"), "{error}");
    run(&["eval", "--weights", &moved_weights, "--data", &data]).fails(6);
    let mut bytes = fs::read(&whitening).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(moved.join("whitening.safetensors"), &bytes).unwrap();
    assert!(infer(&moved_weights).fails(6).contains("SHA-256"));
    fs::copy(&whitening, moved.join("whitening.safetensors")).unwrap();
    assert_eq!(infer(&moved_weights).done().json(), infer(&best).done().json());

    // A run that starts from whitened weights keeps their whitening.
    let tuned = word(at("tuned"));
    let ran =
        run(&training(&data, &tuned, &["--initial-weights", &moved_weights, "--in-channels", "3", "--no-report", "--limit-train", "16"]))
            .done();
    assert!(ran.stderr.contains("whitened as for"), "{ran}");
    assert!(fs::read(at("tuned/whitening.safetensors")).unwrap() == fs::read(&whitening).unwrap());

    // A run without its whitening does not go on.
    fs::write(at("lost/whitening.safetensors"), &bytes).unwrap();
    let resume = ["train", "--resume", &lost];
    assert!(run(&resume).fails(6).contains("SHA-256"));
    fs::remove_file(at("lost/whitening.safetensors")).unwrap();
    assert!(run(&resume).fails(6).contains("is missing"));
}

fn what_whitening_cannot_do_is_a_usage_error() {
    for (flags, words) in [
        (&["--mean", "0.5"][..], "--whiten"),
        (&["--image-size", "64", "--in-channels", "3"], "--image-size"),
        (&["--brightness", "0.2"], "--brightness"),
    ] {
        let line = [&["train", "--model", "nin-small", "--data", "nowhere", "--whiten", "zca"], flags].concat();
        let error = run(&line).fails(2);
        assert!(error.contains(words), "{error}");
    }
}
