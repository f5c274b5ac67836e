//! `tune` and `--tune`: what is found is kept and used, planted faults stop nothing, and a damaged cache is as good as
//! none.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{Ran, finish, keys, mini_fashion, program, run, sample, small_run, tensors, word};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("wrong_arguments_are_2", Nothing, wrong_arguments_are_2),
    ("tune_finds_keeps_and_reports", Device, tune_finds_keeps_and_reports),
    ("planted_faults_stop_nothing", Device, planted_faults_stop_nothing),
    ("training_uses_and_records_what_was_found", Device, training_uses_and_records_what_was_found),
    ("a_damaged_or_foreign_cache_is_as_good_as_none", Device, a_damaged_or_foreign_cache_is_as_good_as_none),
    ("a_folder_that_cannot_be_written_stops_nothing", Device, a_folder_that_cannot_be_written_stops_nothing),
    ("every_verb_tunes_when_asked", Device, every_verb_tunes_when_asked),
];

/// The program with a cache of its own.
fn run_in(cache: &Path, arguments: &[&str]) -> Ran {
    finish(&program(arguments).env("NIN_WGPU_CACHE_DIR", cache).output().unwrap())
}

/// The tuning results in a cache, which holds compiled kernels as well.
fn cache_files(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cache) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect()
}

fn cache_file(cache: &Path) -> PathBuf {
    let found = cache_files(cache);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value} is no text"))
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} of {value} is no array"))
}

fn wrong_arguments_are_2() {
    for line in [&["tune", "--model", "vgg"][..], &["tune", "--budget", "0"], &["bench", "--tune", "slow"], &["tune", "--image-size", "2"]]
    {
        let ran = run(line);
        assert_eq!(ran.code, Some(2), "{line:?}: {ran}");
        assert!(ran.stdout.is_empty() && ran.stderr.contains("error: "), "{line:?}: {ran}");
    }
    let error = run(&["train", "--model", "nin-small", "--data", "mnist", "--batch-size", "auto", "--tune", "quick"]).fails(2);
    assert!(error.contains("--batch-size auto") && error.contains("--tune"), "{error}");
}

const SMALL: [&str; 7] = ["tune", "--model", "nin-small", "--batch-size", "4", "--budget", "120"];

fn tune_finds_keeps_and_reports() {
    let cache = tempfile::tempdir().unwrap();
    let tune = |more: &[&str]| run_in(cache.path(), &[&SMALL, more].concat()).done();
    let first = tune(&["--json"]).json();
    assert_eq!(keys(&first), ["adapter", "driver", "model", "mode", "batch_size", "precision", "seconds", "cache", "problems"]);
    assert_eq!((text(&first, "model"), text(&first, "mode"), &first["batch_size"]), ("nin-small", "train", &Value::from(4)));
    assert_eq!(Path::new(text(&first, "cache")), cache_file(cache.path()));
    let layers: usize = array(&first, "problems").iter().map(|entry| array(entry, "layers").len()).sum();
    assert_eq!(layers, 26);
    for entry in array(&first, "problems") {
        assert_eq!(keys(entry), ["layers", "problem", "rules", "rules_ms", "choice", "ms", "tried"]);
        let (rules_ms, ms) = (entry["rules_ms"].as_f64().unwrap(), entry["ms"].as_f64().unwrap());
        assert!(0.0 < ms && ms <= rules_ms, "{entry}");
        let tried = array(entry, "tried");
        assert_eq!(tried[0]["candidate"], entry["rules"], "the rules come first: {entry}");
        let fastest: Vec<&Value> = tried.iter().filter(|tried| tried["verdict"] == "fastest").collect();
        assert!(fastest.len() == 1 && fastest[0]["candidate"] == entry["choice"], "{entry}");
    }

    // What is known is not measured again, and comes out the same.
    let started = Instant::now();
    let second = tune(&["--json"]);
    assert!(started.elapsed() < Duration::from_secs(10) && !second.stderr.contains("measuring"), "{second}");
    assert_eq!(second.json()["problems"], first["problems"]);
    let table = tune(&[]).stdout;
    assert!(table.contains("conv2d_backward_weight") && table.contains("by rules") && table.contains("all of them"), "{table}");

    let again = tune(&["--again", "--json", "-v"]);
    assert!(again.stderr.contains("measuring kernels for 23 convolutions") && again.stderr.contains("23 of 23"), "{again}");
}

fn planted_faults_stop_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let tune = |variable: &str| {
        let mut command =
            program(&["tune", "--model", "nin-small", "--batch-size", "1", "--mode", "infer", "--budget", "200", "--json", "-v"]);
        finish(&command.env("NIN_WGPU_CACHE_DIR", cache.path()).env(variable, "1").output().unwrap()).done()
    };
    let ran = tune("NIN_WGPU_TUNE_FAULTS");
    assert!(ran.stderr.contains("a candidate did not return and is left out"), "{ran}");
    let json = ran.json();
    let mut seen = Vec::new();
    for entry in array(&json, "problems") {
        assert!(!text(entry, "choice").starts_with("planted"), "{entry}");
        for tried in array(entry, "tried").iter().filter(|tried| text(tried, "candidate").starts_with("planted")) {
            let (name, verdict) = (text(tried, "candidate"), text(tried, "verdict"));
            let expected = match name {
                "planted: does nothing" | "planted: does half" | "planted: leaves out the last workgroup" => "wrong",
                "planted: wants all memory" => "does_not_fit",
                "planted: does not compile" => "does_not_compile",
                "planted: stalls" => "lost",
                other => panic!("{other} is not known"),
            };
            assert_eq!(verdict, expected, "{tried}");
            seen.push(name.to_string());
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6, "{seen:?}");

    // The next process has nothing left to measure, and its picture is answered.
    assert_eq!(tune("NIN_WGPU_UNUSED").json()["problems"], json["problems"]);
    let answer = run_in(cache.path(), &["infer", &sample(), "--json"]).done().json();
    assert_eq!(answer[0]["predictions"][0]["class"], "Ankle boot");
}

fn training_uses_and_records_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let [cache, empty] = ["cache", "empty"].map(|name| folder.path().join(name));
    let data = mini_fashion();
    let out = |name: &str| word(folder.path().join(name));
    let train = |cache: &Path, name: &str, more: &[&str]| {
        let out = out(name);
        // With this schedule a run may go on for more epochs than it was begun with.
        let schedule = ["--schedule", "constant", "--warmup-epochs", "0", "--out", &out];
        run_in(cache, &small_run(&data, &[&schedule, more].concat())).done()
    };
    let weights = |name: &str| fs::read(folder.path().join(name).join("last.safetensors")).unwrap();
    let config = |name: &str| fs::read_to_string(folder.path().join(name).join("config.toml")).unwrap();

    train(&cache, "plain", &["--tune", "off"]);
    assert!(cache_files(&cache).is_empty() && !config("plain").contains("[kernels]"));
    run_in(&cache, &["tune", "--model", "nin-small", "--batch-size", "32", "--budget", "200"]).done();
    let ran = train(&cache, "tuned", &["--tune", "quick"]);
    assert!(!ran.stderr.contains("measuring kernels"), "what is known is measured again: {ran}");
    // A choice of the test's own, so that it does not depend on what is fastest.
    let file = cache_file(&cache);
    let mut content: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let finding = content["findings"].as_array_mut().unwrap().iter_mut().find(|finding| {
        let problem = text(finding, "problem");
        problem.starts_with("conv2d_backward_weight") && problem.contains("kernel 3x3")
    });
    let finding = finding.unwrap();
    let (rules, _) = text(finding, "rules").split_once(", splits").unwrap();
    let choice = format!("{rules}, splits 3, channels first");
    finding["choice"] = Value::from(choice.clone());
    fs::write(&file, content.to_string()).unwrap();

    for name in ["first", "second"] {
        let ran = train(&cache, name, &["-v"]);
        assert!(ran.stderr.contains("have kernels chosen by measuring, from "), "{ran}");
    }
    assert!(config("first").contains(&format!("\"{choice}\"")), "{}", config("first"));
    assert!(weights("first") == weights("second"), "the same choice gives other bytes");
    train(&cache, "off", &["--tune", "off"]);
    assert!(weights("off") == weights("plain"), "--tune off depends on the cache");

    // A run goes on with its own choice, whatever the cache says by then.
    let half = train(&cache, "half", &["--epochs", "1"]);
    assert!(!half.stdout.is_empty());
    let path = folder.path().join("half").join("config.toml");
    fs::write(&path, config("half").replace("epochs = 1\n", "epochs = 2\n")).unwrap();
    let half = word(folder.path().join("half"));
    let error = run_in(&empty, &["train", "--resume", &half, "--tune", "quick"]).fails(2);
    assert!(error.contains("leave --tune out"), "{error}");
    run_in(&empty, &["train", "--resume", &half]).done();
    let names = |tensors: Vec<nin_wgpu::weights::NamedTensor>| tensors.into_iter().map(|t| (t.name, t.data)).collect::<Vec<_>>();
    let read = |name: &str| names(tensors(&folder.path().join(name).join("last.safetensors")));
    assert!(read("half") == read("first"), "a resumed run does not go on with its choice");
}

fn a_damaged_or_foreign_cache_is_as_good_as_none() {
    let cache = tempfile::tempdir().unwrap();
    run_in(cache.path(), &SMALL).done();
    let file = cache_file(cache.path());
    let good = fs::read_to_string(&file).unwrap();
    let version = format!("\"program\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(good.contains(&version), "{good}");
    let absurd = good.replace("splits 1,", "splits 4000000000,").replace("\"choice\": \"", "\"choice\": \"no_such_");
    let damages =
        ["", "{", "[]", &good[..good.len() / 2], &good.replace(&version, "\"program\": \"0.0.0\""), &good.replace("pixels", "p"), &absurd];
    for (index, damaged) in damages.iter().enumerate() {
        fs::write(&file, damaged).unwrap();
        let ran = run_in(cache.path(), &["-v", "bench", "--batch-size", "4", "--steps", "1", "--json"]).done();
        assert!(ran.json()["images_per_s"].as_f64() > Some(0.0), "{ran}");
        let is_read = *damaged == absurd || *damaged == good;
        assert_eq!(ran.stderr.contains("is not used"), !is_read, "{index}: {ran}");
    }
    // The next tuning writes a good one.
    fs::write(&file, "{").unwrap();
    run_in(cache.path(), &SMALL).done();
    assert!(serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap()["findings"].is_array());
}

fn a_folder_that_cannot_be_written_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let ran = run_in(&file.join("cache"), &["bench", "--batch-size", "2", "--steps", "1", "--json", "--tune", "quick"]).done();
    assert!(ran.stderr.contains("cannot be written") && ran.stderr.contains("going on without tuning"), "{ran}");
    let without = |arguments: &[&str]| finish(&program(arguments).env("NIN_WGPU_NO_CACHE", "1").output().unwrap());
    let ran = without(&["bench", "--batch-size", "2", "--steps", "1", "--json", "--tune", "quick"]).done();
    assert!(ran.stderr.contains("NIN_WGPU_NO_CACHE") && ran.stderr.contains("going on without tuning"), "{ran}");
    assert!(without(&SMALL).fails(1).contains("NIN_WGPU_NO_CACHE"));
}

fn every_verb_tunes_when_asked() {
    let cache = tempfile::tempdir().unwrap();
    let data = mini_fashion();
    let picture = sample();
    let lines: &[&[&str]] = &[
        &["bench", "--batch-size", "3", "--steps", "1", "--mode", "infer"],
        &["eval", "--data", &data, "--limit", "5"],
        &["infer", &picture],
    ];
    for line in lines {
        let ran = run_in(cache.path(), &[*line, &["--tune", "quick"]].concat()).done();
        assert!(ran.stderr.contains("measuring kernels for "), "{ran}");
        // A slow machine measures in several goes.
        if !ran.stderr.contains("stay for the next time") {
            let again = run_in(cache.path(), &[*line, &["--tune", "quick"]].concat()).done();
            assert!(!again.stderr.contains("measuring kernels for "), "{again}");
        }
    }
}
