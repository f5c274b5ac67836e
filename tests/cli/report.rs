//! What there is to see of a run: `report.html`, tables, events for TensorBoard, and the dashboard's refusals.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{finish, finished_run, metrics, mini_fashion, program, run, small_run, word};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_run_ends_with_a_report", Device, a_run_ends_with_a_report),
    ("the_report_can_be_made_anew", Device, the_report_can_be_made_anew),
    ("runs_without_test_images_have_a_report", Device, runs_without_test_images_have_a_report),
    ("a_report_that_cannot_be_written_is_a_warning", Device, a_report_that_cannot_be_written_is_a_warning),
    ("wrong_folders_are_refused", Nothing, wrong_folders_are_refused),
    ("the_dashboard_needs_a_terminal", Nothing, the_dashboard_needs_a_terminal),
];

/// Lines of `metrics.csv` without its head, which are as many as records of the event file without its version.
pub fn companions(run: &Path) -> usize {
    let rows = fs::read_to_string(run.join("metrics.csv")).unwrap().lines().count() - 1;
    let is_events = |name: &str| name.starts_with("events.out.tfevents.");
    let names = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let files: Vec<String> = names.filter(|name| is_events(name)).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let bytes = fs::read(run.join(file)).unwrap();
    let (mut at, mut records) = (0, 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        at += length + 16;
        records += 1;
    }
    assert_eq!((at, records), (bytes.len(), rows + 1), "{file}");
    rows
}

fn page(run: &Path) -> String {
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for outside in ["http:", "https:", "<script"] {
        assert!(!page.contains(outside), "{outside} in the report");
    }
    page
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn a_run_ends_with_a_report() {
    let run = finished_run();
    assert_eq!(companions(run), metrics(run).len());
    let sessions = fs::read_to_string(run.join("sessions.jsonl")).unwrap();
    assert!(sessions.lines().count() == 1 && sessions.contains("nin-wgpu train --model nin-small"), "{sessions}");
    let page = page(run);
    let best = metrics(run).iter().filter_map(|line| line.get("test_acc")?.as_f64()).fold(0.0, f64::max);
    for text in [
        format!("<dt>Test accuracy</dt><dd>{}<", percent(best)),
        "<svg viewBox".into(),
        "class=\"confusion\"".into(),
        "T-shirt/top".into(),
        "All 16 filters of 1x5x5".into(),
        "limit_train = 96".into(),
    ] {
        assert!(page.contains(&text), "{text}");
    }
    // 24 mistakes at most, 16 filters.
    assert!((16..=40).contains(&page.matches("src=\"data:image/png;base64,").count()));
    // All images stand in the matrix, and hits are those of the accuracy.
    let count = |kind: &str| -> u64 {
        let start = format!("<td class=\"{kind}");
        let cells = page.split(&start).skip(1);
        cells.map(|cell| cell[cell.find('>').unwrap() + 1..cell.find('<').unwrap()].parse::<u64>().unwrap()).sum()
    };
    assert_eq!(count("hit") + count("mistake"), 64);
    assert!((count("hit") as f64 / 64.0 - best).abs() < 1e-9);
}

fn the_report_can_be_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.toml", "metrics.jsonl", "sessions.jsonl", "best.safetensors", "last.safetensors"] {
        fs::copy(finished_run().join(file), folder.path().join(file)).unwrap();
    }
    let ran = run(&["report", &word(folder.path())]).done();
    assert_eq!(ran.stdout.trim(), word(folder.path().join("report.html")));
    // Everything but digits of confidence, which another batch size rounds otherwise.
    let parts = |run: &Path| page(run).split("<section id=\"mistakes\">").next().unwrap().to_owned();
    assert_eq!(parts(folder.path()), parts(finished_run()));
}

fn runs_without_test_images_have_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cats & dogs");
    for (class, shade) in [("cat", 30), ("dog", 220)] {
        fs::create_dir_all(data.join("train").join(class)).unwrap();
        for n in 0..4 {
            let picture = image::RgbImage::from_pixel(9, 7, image::Rgb([shade + n, shade, shade - n]));
            picture.save(data.join("train").join(class).join(format!("{n}.png"))).unwrap();
        }
    }
    let out = folder.path().join("run");
    let data = word(data);
    let train = |out: &Path, more: &[&str]| {
        let out = word(out);
        let words = ["--in-channels", "3", "--epochs", "1", "--batch-size", "8", "--out", &out];
        run(&small_run(&data, &[&words[..], more].concat())).done()
    };
    let ran = train(&out, &[]);
    assert!(ran.stdout.contains("report.html"), "{ran}");
    let page = page(&out);
    assert!(page.contains("There are no test images") && page.contains("filters of 3x5x5") && page.contains("on cats &amp; dogs<"));
    // And none where none is wanted.
    let out = folder.path().join("plain");
    let ran = train(&out, &["--no-report"]);
    assert!(!ran.stdout.contains("report") && !out.join("report.html").exists(), "{ran}");
}

fn a_report_that_cannot_be_written_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (data, out_word) = (mini_fashion(), word(&out));
    let words = small_run(&data, &["--epochs", "40", "--limit-train", "32", "--limit-test", "8", "--out", &out_word]);
    let child = program(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !out.join("config.toml").exists() && started.elapsed() < Duration::from_secs(120) {
        thread::sleep(Duration::from_millis(2));
    }
    fs::create_dir_all(out.join("report.html").join("in the way")).unwrap();
    let ran = finish(&child.wait_with_output().unwrap()).done();
    let warnings: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("report.html"), "{ran}");
    assert!(!ran.stdout.contains("report  ") && out.join("best.safetensors").exists(), "{ran}");
}

fn wrong_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = word(folder.path());
    let error = run(&["report", &path]).fails(2);
    assert!(error.contains(&path) && error.contains("config.toml"), "{error}");
}

fn the_dashboard_needs_a_terminal() {
    let data = mini_fashion();
    let error = run(&small_run(&data, &["--tui"])).fails(2);
    assert!(error.contains("--tui needs a terminal"), "{error}");
    let error = run(&small_run(&data, &["--tui", "--quiet"])).fails(2);
    assert!(error.contains("--quiet"), "{error}");
}
