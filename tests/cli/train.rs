//! `train` and `eval`: the files of a run, what repeats exactly, and data sets of every form.

use crate::Needs::Device;
use crate::Test;
use crate::support::{cifar_record, finished_run, grey_png, keys, metrics, mini_fashion, run, small_run, tensors, word};
use serde_json::Value;
use std::fs;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("a_run_leaves_the_documented_files", Device, a_run_leaves_the_documented_files),
    ("metrics_have_the_documented_keys", Device, metrics_have_the_documented_keys),
    ("the_same_command_gives_the_same_bytes", Device, the_same_command_gives_the_same_bytes),
    ("lines_hold_the_mean_since_the_last", Device, lines_hold_the_mean_since_the_last),
    ("eval_agrees_with_the_run", Device, eval_agrees_with_the_run),
    ("the_first_loss_is_that_of_the_initial_weights", Device, the_first_loss_is_that_of_the_initial_weights),
    ("gradient_accumulation_is_a_larger_batch", Device, gradient_accumulation_is_a_larger_batch),
    ("a_folder_per_class_trains_and_names_its_classes", Device, a_folder_per_class_trains_and_names_its_classes),
    ("cifar_files_train", Device, cifar_files_train),
];

fn a_run_leaves_the_documented_files() {
    let run = finished_run();
    for name in ["best.safetensors", "config.toml", "last.safetensors", "metrics.jsonl", "train.log"] {
        assert!(run.join(name).is_file(), "{name}");
    }
    assert!(run.join("state").is_dir());
    let is_partial = |name: &str| name.contains("partial") || name.contains("tmp") || name.starts_with('.');
    for folder in [run.to_path_buf(), run.join("state")] {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        assert_eq!(names.filter(|name| is_partial(name)).count(), 0, "a file half written was left behind");
    }
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("# nin-wgpu train --model nin-small"), "{config}");
    let config: toml::Table = config.parse().unwrap();
    for (key, value) in [("batch_size", 32), ("limit_train", 96), ("limit_test", 64), ("epochs", 2), ("log_every", 1)] {
        assert_eq!(config[key].as_integer(), Some(value), "{key}");
    }
    assert_eq!(config["model"].as_str(), Some("nin-small"));
    let log = fs::read_to_string(run.join("train.log")).unwrap();
    assert!(log.contains("nin-wgpu train") && log.contains("epoch 2"), "{log}");
    let names = |file: &str| tensors(&run.join(file)).into_iter().map(|tensor| tensor.name).collect::<Vec<_>>();
    assert_eq!(names("best.safetensors"), names("last.safetensors"));
}

fn metrics_have_the_documented_keys() {
    let lines = metrics(finished_run());
    let (mut steps, mut epochs) = (Vec::new(), Vec::new());
    for line in &lines {
        if line.get("step").is_some() {
            assert_eq!(keys(line), ["step", "epoch", "loss", "lr", "images_per_s"]);
            assert!(line["loss"].as_f64() > Some(0.0) && line["lr"].as_f64() >= Some(0.0) && line["images_per_s"].as_f64() > Some(0.0));
            steps.push((line["step"].as_u64().unwrap(), line["epoch"].as_u64().unwrap()));
        } else {
            assert_eq!(keys(line), ["epoch", "train_loss", "train_acc", "test_loss", "test_acc", "seconds"]);
            for key in ["train_acc", "test_acc"] {
                assert!((0.0..=1.0).contains(&line[key].as_f64().unwrap()), "{line}");
            }
            epochs.push(line["epoch"].as_u64().unwrap());
        }
    }
    // 96 images in batches of 32, twice; a line a step.
    assert_eq!(steps, [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]);
    assert_eq!(epochs, [1, 2]);
    assert!(lines[3].get("train_loss").is_some(), "the line of an epoch stands behind those of its steps");
    // The epoch's loss is the mean over its images.
    let mean = |range: std::ops::Range<usize>| lines[range].iter().map(|line| line["loss"].as_f64().unwrap()).sum::<f64>() / 3.0;
    assert!((mean(0..3) - lines[3]["train_loss"].as_f64().unwrap()).abs() < 1e-6);
    assert!((mean(4..7) - lines[7]["train_loss"].as_f64().unwrap()).abs() < 1e-6);
    // Kaiming's start makes logits of some size, so the first loss is that of guessing only roughly.
    assert!((1.0..6.0).contains(&lines[0]["loss"].as_f64().unwrap()), "{}", lines[0]);
}

fn the_same_command_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| word(folder.path().join(name));
    let bytes = |run: &Path, file: &str| fs::read(run.join(file)).unwrap();
    run(&small_run(&mini_fashion(), &["--out", &at("again")])).done();
    let again = folder.path().join("again");
    for file in ["last.safetensors", "best.safetensors"] {
        assert!(bytes(finished_run(), file) == bytes(&again, file), "{file} differs");
    }
    let losses = |run: &Path| metrics(run).iter().map(|line| line.get("loss").cloned()).collect::<Vec<_>>();
    assert_eq!(losses(finished_run()), losses(&again));
    // Another seed is another run.
    run(&small_run(&mini_fashion(), &["--out", &at("other"), "--seed", "77"])).done();
    assert!(bytes(finished_run(), "last.safetensors") != bytes(&folder.path().join("other"), "last.safetensors"));
}

fn lines_hold_the_mean_since_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let out = word(folder.path().join("run"));
    run(&small_run(&mini_fashion(), &["--out", &out, "--log-every", "2"])).done();
    let single: Vec<f64> = metrics(finished_run()).iter().filter_map(|line| line.get("loss")?.as_f64()).collect();
    let double: Vec<(u64, f64)> = metrics(folder.path().join("run").as_path())
        .iter()
        .filter_map(|line| Some((line.get("step")?.as_u64()?, line["loss"].as_f64()?)))
        .collect();
    assert_eq!(double.iter().map(|line| line.0).collect::<Vec<_>>(), [2, 4, 6]);
    for (pair, (step, loss)) in single.chunks(2).zip(double) {
        assert!((loss - (pair[0] + pair[1]) / 2.0).abs() < 1e-9, "step {step}");
    }
}

fn eval_agrees_with_the_run() {
    let weights = word(finished_run().join("last.safetensors"));
    let report =
        run(&["eval", "--weights", &weights, "--data", &mini_fashion(), "--limit", "64", "--batch-size", "24", "--json"]).done().json();
    assert_eq!(keys(&report), ["images", "loss", "top1", "top5", "confusion"]);
    assert_eq!(report["images"], 64);
    let confusion: Vec<Vec<u64>> = serde_json::from_value(report["confusion"].clone()).unwrap();
    assert!(confusion.len() == 10 && confusion.iter().all(|row| row.len() == 10));
    assert_eq!(confusion.iter().flatten().sum::<u64>(), 64);
    let right: u64 = (0..10).map(|class| confusion[class][class]).sum();
    let (top1, top5) = (report["top1"].as_f64().unwrap(), report["top5"].as_f64().unwrap());
    assert!((top1 - right as f64 / 64.0).abs() < 1e-9 && (top1..=1.0).contains(&top5), "{report}");
    // The run measured the same images with the same weights.
    let lines = metrics(finished_run());
    let last = lines.last().unwrap();
    assert!((last["test_acc"].as_f64().unwrap() - top1).abs() < 1e-9, "{last} {report}");
    assert!((last["test_loss"].as_f64().unwrap() - report["loss"].as_f64().unwrap()).abs() < 1e-5, "{last} {report}");
    let text = run(&["eval", "--weights", &weights, "--data", &mini_fashion(), "--limit", "16"]).done().stdout;
    assert!(text.contains("top 1") && text.contains("top 5"), "{text}");
}

fn the_first_loss_is_that_of_the_initial_weights() {
    let folder = tempfile::tempdir().unwrap();
    let weights = word(finished_run().join("last.safetensors"));
    let out = word(folder.path().join("run"));
    let data = mini_fashion();
    let more = [
        "--initial-weights",
        &weights,
        "--no-shuffle",
        "--no-augment",
        "--dropout",
        "0",
        "--limit-train",
        "32",
        "--epochs",
        "1",
        "--out",
        &out,
    ];
    run(&small_run(&data, &more)).done();
    let report = run(&["eval", "--weights", &weights, "--data", &data, "--split", "train", "--limit", "32", "--json"]).done().json();
    let first = metrics(&folder.path().join("run"))[0]["loss"].as_f64().unwrap();
    assert!((first - report["loss"].as_f64().unwrap()).abs() < 1e-5, "{first} {report}");
}

fn gradient_accumulation_is_a_larger_batch() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| word(folder.path().join(name));
    let data = mini_fashion();
    let plain = ["--no-shuffle", "--no-augment", "--dropout", "0", "--epochs", "1"];
    run(&small_run(&data, &[&plain[..], &["--out", &at("whole")]].concat())).done();
    run(&small_run(&data, &[&plain[..], &["--out", &at("parts"), "--batch-size", "16", "--grad-accum", "2"]].concat())).done();
    let losses = |name: &str| {
        metrics(&folder.path().join(name))
            .iter()
            .filter_map(|line| Some((line.get("step")?.as_u64()?, line["loss"].as_f64()?)))
            .collect::<Vec<_>>()
    };
    let (whole, parts) = (losses("whole"), losses("parts"));
    assert_eq!(whole.len(), 3);
    assert_eq!(parts.len(), 3);
    for (one, other) in whole.iter().zip(&parts) {
        assert!((one.1 - other.1).abs() < 1e-4 * one.1, "{one:?} {other:?}");
    }
}

/// A folder with a folder per class in each split.
fn class_folders(root: &Path) {
    for (split, count) in [("train", 4), ("test", 2)] {
        for (class, name) in ["blue shirt", "ähre"].iter().enumerate() {
            let folder = root.join(split).join(name);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                grey_png(&folder.join(format!("{number}.png")), 28 + number, 30, number * 7 + class as u32);
            }
        }
    }
}

fn a_folder_per_class_trains_and_names_its_classes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    class_folders(&data);
    let (data_word, out) = (word(&data), word(folder.path().join("run")));
    run(&["train", "--model", "nin-small", "--data", &data_word, "--epochs", "1", "--batch-size", "4", "--log-every", "1", "--out", &out])
        .done();
    assert_eq!(metrics(&folder.path().join("run")).len(), 3);
    let weights = word(folder.path().join("run/last.safetensors"));
    let report = run(&["eval", "--weights", &weights, "--data", &data_word, "--json"]).done().json();
    assert_eq!((&report["images"], report["confusion"].as_array().unwrap().len()), (&Value::from(4), 2));
    let picture = word(data.join("test/ähre/0.png"));
    let answers = run(&["infer", "--json", "--weights", &weights, &picture]).done().json();
    let mut classes: Vec<&str> = answers[0]["predictions"].as_array().unwrap().iter().map(|p| p["class"].as_str().unwrap()).collect();
    classes.sort_unstable();
    assert_eq!(classes, ["blue shirt", "ähre"]);
}

fn cifar_files_train() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let records = |labels: &[u8]| labels.iter().flat_map(|label| cifar_record(*label)).collect::<Vec<u8>>();
    fs::write(data.join("data_batch_1.bin"), records(&[3, 9, 0])).unwrap();
    fs::write(data.join("test_batch.bin"), records(&[1, 2])).unwrap();
    let (data_word, out) = (word(&data), word(folder.path().join("run")));
    let line = [
        "train",
        "--model",
        "nin-cifar",
        "--data",
        &data_word,
        "--limit-train",
        "2",
        "--limit-test",
        "1",
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--log-every",
        "1",
        "--out",
        &out,
    ];
    run(&line).done();
    let lines = metrics(&folder.path().join("run"));
    assert_eq!(lines.len(), 2);
    assert!((lines[0]["loss"].as_f64().unwrap() - 10f64.ln()).abs() < 1.5, "{}", lines[0]);
    let names: Vec<String> = tensors(&folder.path().join("run/last.safetensors")).into_iter().map(|tensor| tensor.name).collect();
    let expected: Vec<String> = ["0", "3", "6"]
        .iter()
        .flat_map(|block| ["0", "2", "4"].iter().flat_map(move |leaf| ["weight", "bias"].map(|part| format!("{block}.{leaf}.{part}"))))
        .collect();
    assert_eq!(names, expected);
}
