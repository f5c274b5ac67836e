//! Runs that are stopped, or killed, and go on: in the end the weights are those of a run that was left alone.

use crate::Needs::Device;
use crate::Test;
use crate::report::companions;
use crate::support::{Ran, finish, metrics, mini_fashion, program, run, small_run, word};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("stopped_and_killed_runs_go_on_exactly", Device, stopped_and_killed_runs_go_on_exactly),
    ("the_second_signal_stops_at_once", Device, the_second_signal_stops_at_once),
];

/// Steps of an epoch: 96 images in batches of 16.
const STEPS: usize = 6;

/// A fast device may finish before it can be stopped: then the same with longer runs.
fn stopped_and_killed_runs_go_on_exactly() {
    for epochs in ["5", "60", "1500"] {
        if attempt(epochs) {
            return;
        }
    }
    panic!("every run was over before it could be stopped");
}

fn attempt(epochs: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let data = mini_fashion();
    let at = |name: &str| folder.path().join(name);
    let line = |name: &str| {
        let out = word(at(name));
        small_run(&data, &["--epochs", epochs, "--batch-size", "16", "--limit-test", "16", "--out", &out])
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };

    // Stopped in the middle of the second epoch, and once more while it goes on.
    let mut stopped = start(&line("stopped"));
    if !wait_for_lines(&at("stopped"), STEPS + 3, &mut stopped) {
        return false;
    }
    let ran = signal(stopped, "-INT");
    if ran.code == Some(0) {
        return false;
    }
    assert_eq!(ran.code, Some(130), "{ran}");
    assert!(ran.stderr.contains("--resume") && ran.stdout.is_empty(), "{ran}");
    let resume = vec!["train".to_string(), "--resume".into(), word(at("stopped"))];
    let mut again = start(&resume);
    let lines = metrics(&at("stopped")).len();
    if wait_for_lines(&at("stopped"), lines + 2, &mut again) {
        let ran = signal(again, "-TERM");
        assert!([Some(0), Some(130)].contains(&ran.code), "{ran}");
    } else {
        finish(&again.wait_with_output().unwrap()).done();
    }
    run(&["train", "--resume", &word(at("stopped"))]).done();

    // Killed without a chance to save, behind the checkpoint of the first epoch.
    let mut killed = start(&line("killed"));
    if !wait_for_lines(&at("killed"), STEPS + 2, &mut killed) {
        return false;
    }
    signal(killed, "-KILL");
    run(&["train", "--resume", &word(at("killed"))]).done();

    let plain = line("plain");
    run(&plain.iter().map(String::as_str).collect::<Vec<_>>()).done();
    for name in ["stopped", "killed"] {
        for file in ["last.safetensors", "best.safetensors"] {
            assert!(fs::read(at(name).join(file)).unwrap() == fs::read(at("plain").join(file)).unwrap(), "{name}: {file} differs");
        }
        assert_eq!(timeless(&at(name)), timeless(&at("plain")), "{name}");
        assert_eq!(companions(&at(name)), metrics(&at(name)).len(), "{name}");
    }
    true
}

/// The lines of a run's metrics without what a clock says.
pub fn timeless(run: &Path) -> Vec<serde_json::Value> {
    let mut lines = metrics(run);
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.remove("images_per_s");
        line.remove("seconds");
    }
    lines
}

pub fn start(words: &[String]) -> Child {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    program(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a run has written so many lines; false where it ended before.
pub fn wait_for_lines(run: &Path, lines: usize, child: &mut Child) -> bool {
    let started = Instant::now();
    loop {
        let written = fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
        if written >= lines {
            return true;
        }
        let has_ended = child.try_wait().unwrap().is_some();
        if has_ended || started.elapsed() > Duration::from_secs(120) {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal and waits for the end.
pub fn signal(child: Child, which: &str) -> Ran {
    let status = Command::new("kill").args([which, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    finish(&child.wait_with_output().unwrap())
}

/// Behind a slow step the first signal waits for it, and the second does not.
fn the_second_signal_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (data, name) = (mini_fashion(), word(&out));
    // More epochs than any device is done with.
    let flags = ["train", "--model", "nin", "--limit-train", "64", "--limit-test", "2", "--batch-size", "64", "--epochs", "100000"];
    let line: Vec<String> = flags.into_iter().chain(["--data", &data, "--out", &name]).map(String::from).collect();
    let child = start(&line);
    let deadline = Instant::now() + Duration::from_secs(100);
    while !out.join("state/manifest.json").exists() {
        assert!(Instant::now() < deadline, "the run does not begin");
        thread::sleep(Duration::from_millis(10));
    }
    // The first step is under way.
    thread::sleep(Duration::from_millis(500));
    let process = child.id().to_string();
    Command::new("kill").args(["-INT", &process]).status().unwrap();
    thread::sleep(Duration::from_millis(300));
    let second = Instant::now();
    let ran = signal(child, "-INT");
    assert_eq!(ran.code, Some(130), "{ran}");
    // On a fast device the first signal was enough.
    if !ran.stderr.contains("everything is saved") {
        assert!(second.elapsed() < Duration::from_secs(3), "{:?} until the end", second.elapsed());
        assert!(ran.stderr.contains("press Ctrl-C again"), "{ran}");
    }
    assert!(out.join("state/manifest.json").exists());
}
