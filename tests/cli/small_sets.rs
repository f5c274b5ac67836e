//! Runs of few pictures: those that lost the network in their first updates, and those that lose it later.

use crate::Needs::Device;
use crate::Test;
use crate::support::{metrics, mini_fashion, project, run, small_run, word};
use image::{Rgb, RgbImage};
use nin_wgpu::rng::Stream;
use std::fs;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("a_small_set_learns_without_flags", Device, a_small_set_learns_without_flags),
    ("a_run_that_explodes_goes_back", Device, a_run_that_explodes_goes_back),
    ("a_batch_larger_than_the_data_is_cut", Device, a_batch_larger_than_the_data_is_cut),
];

/// Three classes of coloured clouds, each with a tint of its own, of many sizes.
fn tinted_folder(root: &Path, count: u32) {
    for (class, (name, tint)) in [("red", [200, 40, 40]), ("green", [40, 170, 60]), ("blue", [40, 60, 200])].into_iter().enumerate() {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        for n in 0..count {
            let mut rng = Stream::new(5, class as u32, n, 0);
            let mut side = || rng.uniform_in(20.0, 120.0) as u32;
            let (width, height) = (side(), side());
            let columns = width / 6 + 2;
            let cells: Vec<f32> = (0..columns * (height / 6 + 2) * 3).map(|_| rng.uniform_in(0.0, 255.0)).collect();
            // Between the four cells around, by distance.
            let cloud = |x: u32, y: u32, channel: u32| {
                let at = |column: u32, row: u32| cells[((row * columns + column) * 3 + channel) as usize];
                let (along, down) = ((x % 6) as f32 / 6.0, (y % 6) as f32 / 6.0);
                let row = |row| at(x / 6, row) * (1.0 - along) + at(x / 6 + 1, row) * along;
                row(y / 6) * (1.0 - down) + row(y / 6 + 1) * down
            };
            let picture = RgbImage::from_fn(width, height, |x, y| {
                Rgb([0, 1, 2].map(|channel| (cloud(x, y, channel) * 0.5 + tint[channel as usize] as f32 * 0.5) as u8))
            });
            picture.save(folder.join(format!("{n:03}.png"))).unwrap();
        }
    }
}

fn a_small_set_learns_without_flags() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("own");
    tinted_folder(&data, 40);
    let out = folder.path().join("run");
    let ran = run(&["train", "--model", "nin-small", "--data", &word(&data), "--no-report", "--out", &word(&out)]).done();
    assert!(
        ran.stderr.contains("108 training pictures make few updates: the run gets --epochs 50 --warmup-epochs 12.5 --clip-norm 1"),
        "{ran}"
    );
    let lines = metrics(&out);
    let last = lines.last().unwrap();
    assert!(last["test_acc"].as_f64().unwrap() > 0.85 && last["epoch"] == 50, "{last}\n{ran}");
    assert!(ran.stdout.contains("best.safetensors"), "{ran}");
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.contains("epochs = 50\n") && config.contains("clip_norm = 1.0\n"), "{config}");
    // A finished run that is resumed trains nothing, and recommends the same weights.
    let resumed = run(&["-q", "train", "--no-report", "--resume", &word(&out)]).done();
    assert!(resumed.stdout.contains("best.safetensors") && !resumed.stdout.contains("last.safetensors"), "{resumed}");
}

/// Good weights, and a rate that rises until nothing can hold: slowly, so that the first epoch goes well, and to a peak whose quarter
/// or sixteenth is mild, however a driver rounds.
fn a_run_that_explodes_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let weights = word(project("assets/nin-small-fashion.safetensors"));
    let more = ["--initial-weights", &weights, "--lr", "0.3", "--warmup-epochs", "10", "--epochs", "10", "--batch-size", "16"];
    let folder_of_run = word(&out);
    let more = [&more[..], &["--schedule", "constant", "--no-report", "--out", &folder_of_run]].concat();
    let ran = run(&small_run(&mini_fashion(), &more)).done();
    let said: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("with a quarter of the learning rate")).collect();
    assert!(!said.is_empty() && said[0].contains("going on from the checkpoint of step") && said[0].ends_with("attempt 1 of 3"), "{ran}");
    let log = fs::read_to_string(out.join("train.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("with a quarter of the learning rate")).count(), said.len(), "{log}");
    // One story from the first step to the last, at the smaller rate after the last return.
    let lines = metrics(&out);
    let steps: Vec<u64> = lines.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<u64>>());
    let rate = lines.iter().filter_map(|line| line["lr"].as_f64()).next_back().unwrap();
    let expected = 0.3 * 0.25f64.powi(said.len() as i32);
    assert!((rate / expected - 1.0).abs() < 1e-6, "{rate}, not {expected}");
    let last = lines.last().unwrap();
    assert!(last["test_acc"].as_f64().unwrap() > 0.5 && last["test_loss"].as_f64().unwrap() < 10.0, "{last}");
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("lr = 0.3\n"));
}

fn a_batch_larger_than_the_data_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let flags = ["--batch-size", "1000", "--epochs", "1", "--limit-train", "20", "--limit-test", "10", "--no-report"];
    let ran = run(&small_run(&mini_fashion(), &[&flags[..], &["--out", &word(&out)]].concat())).done();
    assert!(ran.stderr.contains("a batch of 1000 is larger than the 20 training images: it becomes 20"), "{ran}");
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("batch_size = 20\n"));
}
