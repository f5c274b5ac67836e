//! Recipes, and what a run can have beyond the plain update: everything goes on where it stopped.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{grey_png, keys, metrics, mini_fashion, program, project, run, small_run, tensors, word};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("the_list_names_every_recipe", Nothing, the_list_names_every_recipe),
    ("wrong_recipes_and_layers_are_usage_errors", Nothing, wrong_recipes_and_layers_are_usage_errors),
    ("a_run_is_a_recipe", Device, a_run_is_a_recipe),
    ("a_run_with_everything_goes_on_exactly", Device, a_run_with_everything_goes_on_exactly),
    ("a_run_without_progress_stops_early", Device, a_run_without_progress_stops_early),
    ("other_classes_get_a_new_head", Device, other_classes_get_a_new_head),
];

fn the_list_names_every_recipe() {
    let list = run(&["recipes", "--json"]).done().json();
    let entries = list.as_array().unwrap();
    let mut names: Vec<&str> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert!(entries.iter().all(|entry| keys(entry) == ["name", "model", "data", "about"]), "{list}");
    let text = run(&["recipes"]).done().stdout;
    assert!(names.iter().all(|name| text.contains(name)), "{text}");
    names.sort_unstable();
    let expected = [
        "cifar10-fast",
        "d2l-nin",
        "d2l-nin-long",
        "fashion-small",
        "nin-one-1x1",
        "paper-cifar10",
        "paper-cifar10-aug",
        "paper-cifar100",
        "paper-mnist",
        "paper-svhn",
    ];
    assert_eq!(names, expected);
    let printed = run(&["recipes", "paper-svhn"]).done().stdout;
    assert_eq!(printed, fs::read_to_string(project("assets/recipes/paper-svhn.toml")).unwrap());
}

fn wrong_recipes_and_layers_are_usage_errors() {
    let data = mini_fashion();
    for (line, words) in [
        (vec!["recipes", "none"], "there is no recipe 'none'"),
        (vec!["train", "--recipe", "none", "--data", &data], "--recipe none: no file, and none of: d2l-nin,"),
        (vec!["train", "--recipe", "d2l-nin", "--resume", "x"], "--resume"),
    ] {
        let ran = run(&line);
        assert!(ran.code == Some(2) && ran.stderr.contains(words), "{ran}");
    }
}

/// `config.toml` of a run makes the same run again, and the embedded recipe is that of the model.
fn a_run_is_a_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let (data, at) = (mini_fashion(), |name: &str| word(folder.path().join(name)));
    let flags = ["--clip-norm", "1", "--label-smoothing", "0.1", "--limit-train", "64", "--epochs", "1", "--out"];
    run(&small_run(&data, &[&flags[..], &[&at("first")]].concat())).done();
    run(&["train", "--recipe", &word(folder.path().join("first/config.toml")), "--out", &at("second")]).done();
    let mut named =
        vec!["train", "--recipe", "fashion-small", "--data", &data, "--batch-size", "32", "--limit-test", "64", "--log-every", "1"];
    named.extend(flags);
    let third = at("third");
    named.push(&third);
    run(&named).done();
    let bytes = |name: &str| fs::read(folder.path().join(name).join("last.safetensors")).unwrap();
    assert!(bytes("first") == bytes("second") && bytes("first") == bytes("third"));
}

/// The flags of a run with all that an update can have, and a learning rate that falls behind every epoch.
#[rustfmt::skip]
const EVERYTHING: [&str; 18] = [
    "--optimizer", "adamw", "--lr", "0.002", "--clip-norm", "1", "--label-smoothing", "0.1", "--ema", "0.9", "--freeze", "0",
    "--schedule", "plateau", "--patience", "0", "--step-gamma", "0.5",
];

fn a_run_with_everything_goes_on_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (data, at) = (mini_fashion(), |name: &str| folder.path().join(name));
    let line = |out: &str| -> Vec<String> {
        let words = [&EVERYTHING[..], &["--epochs", "4", "--limit-test", "32", "--batch-size", "16", "--out", out]].concat();
        small_run(&data, &words).iter().map(ToString::to_string).collect()
    };
    let start = |words: &[String]| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        program(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // Killed in the third epoch, behind a test that may have lowered the rate; a fast device may be done by then.
    let mut killed = start(&line(&word(at("killed"))));
    let started = Instant::now();
    let lines = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while lines(&at("killed")) < 16 && killed.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    run(&["train", "--resume", &word(at("killed"))]).done();
    let plain = line(&word(at("plain")));
    run(&plain.iter().map(String::as_str).collect::<Vec<_>>()).done();
    for file in ["last.safetensors", "best.safetensors"] {
        assert!(fs::read(at("killed").join(file)).unwrap() == fs::read(at("plain").join(file)).unwrap(), "{file} differs");
    }

    let (saved, state) = (tensors(&at("plain/last.safetensors")), state_tensors(&at("plain")));
    let of = |kind: &str, name: &str| state.iter().find(|t| t.name == format!("{kind}{name}")).unwrap_or_else(|| panic!("{kind}{name}"));
    for tensor in &saved {
        let (raw, average) = (of("parameter/", &tensor.name), of("optimizer/ema/", &tensor.name));
        assert_eq!(tensor.data, average.data, "{}", tensor.name);
        assert_eq!(raw.data == average.data, tensor.name.starts_with("0."), "{}", tensor.name);
    }
    // Evaluation of the file is what the run tested.
    let report = run(&["eval", "--weights", &word(at("plain/last.safetensors")), "--data", &data, "--limit", "32", "--json"]).done().json();
    let last = metrics(&at("plain")).pop().unwrap();
    assert!((report["loss"].as_f64().unwrap() - last["test_loss"].as_f64().unwrap()).abs() < 1e-5, "{report} {last}");
}

/// The tensors of a run's checkpoint.
fn state_tensors(run: &Path) -> Vec<nin_wgpu::weights::NamedTensor> {
    let files = fs::read_dir(run.join("state")).unwrap().map(|entry| entry.unwrap().path());
    let file = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).max().unwrap();
    tensors(&file)
}

/// With next to no learning rate nothing gets better; the run that ended so does not go on.
fn a_run_without_progress_stops_early() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (mini_fashion(), word(folder.path().join("run")));
    let flags = ["--lr", "1e-12", "--weight-decay", "0", "--epochs", "5", "--early-stop", "2", "--limit-train", "32", "--out", &out];
    let ran = run(&small_run(&data, &flags)).done();
    assert!(ran.stderr.contains("stopped early: no better test accuracy for 2 epochs"), "{ran}");
    let epochs = || metrics(folder.path().join("run").as_path()).iter().filter(|line| line.get("test_acc").is_some()).count();
    assert_eq!(epochs(), 3);
    run(&["train", "--resume", &out]).done();
    assert_eq!(epochs(), 3);
}

fn other_classes_get_a_new_head() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (split, count) in [("train", 6), ("test", 2)] {
        for (class, name) in ["left", "right"].iter().enumerate() {
            let path = data.join(split).join(name);
            fs::create_dir_all(&path).unwrap();
            (0..count).for_each(|number| grey_png(&path.join(format!("{number}.png")), 28, 28, (class * 10 + number) as u32));
        }
    }
    let (data, out) = (word(&data), word(folder.path().join("run")));
    let weights = word(project("assets/nin-small-fashion.safetensors"));
    let line = ["train", "--model", "nin-small", "--data", &data, "--initial-weights", &weights, "--epochs", "1", "--batch-size", "4"];
    let ran = run(&[&line[..], &["--freeze", "0,2", "--out", &out]].concat()).done();
    assert!(ran.stderr.contains("knows 10 classes, this run has 2: the head (layer 5.4) starts anew"), "{ran}");
    let (before, after) = (tensors(Path::new(&weights)), tensors(&folder.path().join("run/last.safetensors")));
    for (before, after) in before.iter().zip(&after) {
        let is_frozen = before.name.starts_with("0.") || before.name.starts_with("2.");
        assert_eq!(before.data == after.data, is_frozen, "{}", before.name);
    }
    assert_eq!(after.last().unwrap().shape, [2]);

    let line = [&line[..], &["--freeze", "0,1"]].concat();
    let message = run(&line).fails(2);
    assert!(message.contains("--freeze names '1', which holds no layer of nin-small"), "{message}");
    let everything = [&line[..line.len() - 1], &["0,2,5"]].concat();
    assert!(run(&everything).fails(2).contains("nothing is left to train"));
}
