//! Weights of this program in PyTorch: `load_state_dict` takes them, and the answers are the same.

use crate::Test;
use crate::support::{finished_run, mini_fashion, project, run, word};
use flate2::read::GzDecoder;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

pub const TESTS: &[Test] = &[("weights_load_and_answer_alike", crate::Needs::Torch, weights_load_and_answer_alike)];

/// The Python that has PyTorch; `scripts/run-tests.sh` sets it where there is one.
pub fn python() -> Option<String> {
    std::env::var("NIN_WGPU_PYTHON").ok().filter(|python| !python.is_empty())
}

fn weights_load_and_answer_alike() {
    let folder = tempfile::tempdir().unwrap();
    let mut test_images = Vec::new();
    let packed = fs::File::open(Path::new(&mini_fashion()).join("t10k-images-idx3-ubyte.gz")).unwrap();
    GzDecoder::new(packed).read_to_end(&mut test_images).unwrap();
    for weights in [finished_run().join("last.safetensors"), project("assets/nin-small-fashion.safetensors")] {
        for index in [0, 250, 777] {
            let picture = word(folder.path().join(format!("{index}.pgm")));
            let pixels = &test_images[16 + index * 784..][..784];
            fs::write(&picture, [b"P5\n28 28\n255\n", pixels].concat()).unwrap();
            let answers = run(&["infer", "--json", "--topk", "10", "--weights", &word(&weights), &picture]).done().json();
            let output =
                Command::new(python().unwrap()).arg(project("tests/cli/load_weights.py")).arg(&weights).arg(&picture).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let expected: Vec<f64> = serde_json::from_slice(&output.stdout).unwrap();
            let predictions = answers[0]["predictions"].as_array().unwrap();
            assert_eq!((predictions.len(), expected.len()), (10, 10));
            for prediction in predictions {
                let theirs = expected[prediction["index"].as_u64().unwrap() as usize];
                let ours = prediction["probability"].as_f64().unwrap();
                assert!((ours - theirs).abs() < 1e-4, "{weights:?}, image {index}: {ours} here, {theirs} in PyTorch\n{answers}");
            }
        }
    }
}
