//! A run's folder and its data: one process at a time, found from every folder, moved, and prolonged.

use crate::Needs::Device;
use crate::Test;
use crate::interrupt::{signal, start, wait_for_lines};
use crate::support::{finish, grey_png, metrics, mini_fashion, program, run, small_run, word};
use std::fs;
use std::path::{Path, PathBuf};

pub const TESTS: &[Test] = &[
    ("one_process_trains_in_a_folder", Device, one_process_trains_in_a_folder),
    ("data_is_found_from_every_folder_and_may_move", Device, data_is_found_from_every_folder_and_may_move),
    ("a_changed_picture_is_noticed", Device, a_changed_picture_is_noticed),
    ("epochs_may_be_added", Device, epochs_may_be_added),
];

fn one_process_trains_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (mini_fashion(), folder.path().join("run"));
    let name = word(&out);
    let flags = ["--epochs", "100000", "--schedule", "constant", "--checkpoint-every", "1", "--out", &name];
    let line: Vec<String> = small_run(&data, &flags).into_iter().map(String::from).collect();
    let mut child = start(&line);
    assert!(wait_for_lines(&out, 2, &mut child), "the run does not begin");
    let error = run(&["train", "--resume", &name]).fails(2);
    assert!(error.contains(&format!("another process (number {}) trains in this folder", child.id())), "{error}");
    assert!(out.join(".lock").exists(), "whoever is refused leaves the lock alone");
    // A killed process takes its lock with it, and leaves its file to whoever goes on.
    signal(child, "-KILL");
    let steps: Vec<u64> = metrics(&out).iter().filter_map(|line| line.get("lr").and(line["step"].as_u64())).collect();
    let epochs = (steps.last().unwrap() / 3 + 2).to_string();
    run(&["train", "--resume", &name, "--epochs", &epochs, "--no-report"]).done();
    let steps: Vec<u64> = metrics(&out).iter().filter_map(|line| line.get("lr").and(line["step"].as_u64())).collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    assert!(!out.join(".lock").exists(), "a finished run leaves its lock");
}

/// Pictures of two classes, `side` pixels wide.
fn pictures(folder: &Path, side: u32) -> PathBuf {
    for (class, name) in ["dark", "light"].iter().enumerate() {
        fs::create_dir_all(folder.join(name)).unwrap();
        for number in 0..12 {
            grey_png(&folder.join(name).join(format!("{number}.png")), side, 28, number + 100 * class as u32);
        }
    }
    folder.to_path_buf()
}

fn data_is_found_from_every_folder_and_may_move() {
    let folder = tempfile::tempdir().unwrap();
    let [here, elsewhere] = ["here", "elsewhere"].map(|name| folder.path().join(name));
    fs::create_dir_all(&elsewhere).unwrap();
    pictures(&here.join("sets/mine"), 28);
    let within = |place: &Path, line: &[&str]| finish(&program(line).current_dir(place).output().unwrap());
    let out = word(folder.path().join("run"));
    let flags = ["--epochs", "1", "--batch-size", "8", "--schedule", "constant", "--out", &out];
    within(&here, &small_run("sets/mine", &flags)).done();
    let config = || fs::read_to_string(Path::new(&out).join("config.toml")).unwrap();
    let whole = word(std::path::absolute(here.join("sets/mine")).unwrap());
    assert!(config().contains(&format!("data = \"{whole}\"\n")), "{}", config());

    // From another folder: a report, a longer run, and another run by its settings.
    within(&elsewhere, &["report", &out]).done();
    within(&elsewhere, &["train", "--resume", &out, "--epochs", "2"]).done();
    within(&elsewhere, &["train", "--recipe", &format!("{out}/config.toml"), "--out", "again", "--epochs", "1", "--no-report"]).done();

    // The data has moved: its new place is kept. Other data is refused, and nothing is changed by that.
    fs::rename(here.join("sets"), elsewhere.join("moved")).unwrap();
    within(&elsewhere, &["train", "--resume", &out, "--epochs", "3"]).fails(6);
    within(&elsewhere, &["train", "--resume", &out, "--epochs", "3", "--data", "moved/mine"]).done();
    let moved = word(std::path::absolute(elsewhere.join("moved/mine")).unwrap());
    assert!(config().contains(&format!("data = \"{moved}\"\n")) && config().contains("epochs = 3\n"), "{}", config());
    within(&here, &["report", &out]).done();
    let other = pictures(&here.join("other"), 31);
    let before = config();
    let error = within(&here, &["train", "--resume", &out, "--epochs", "4", "--data", &word(other)]).fails(6);
    assert!(error.contains("began with another data set"), "{error}");
    assert_eq!(config(), before);
    assert_eq!(metrics(Path::new(&out)).iter().filter(|line| line.get("train_acc").is_some()).count(), 3);
}

/// Another picture under the same name and as large is other data; the same pictures with other dates are not.
fn a_changed_picture_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let [first, copy] = ["first", "copy"].map(|name| folder.path().join(name));
    let picture = |level: u8| [b"P5 28 28 255\n".as_slice(), &[level; 28 * 28]].concat();
    for (data, class) in [(&first, "dark"), (&first, "light"), (&copy, "dark"), (&copy, "light")] {
        fs::create_dir_all(data.join(class)).unwrap();
        for number in 0..12 {
            fs::write(data.join(class).join(format!("{number}.pgm")), picture(if class == "dark" { number } else { 255 - number }))
                .unwrap();
        }
    }
    let touched = fs::File::options().write(true).open(copy.join("dark/3.pgm")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let out = word(folder.path().join("run"));
    run(&small_run(&word(first), &["--epochs", "1", "--batch-size", "8", "--schedule", "constant", "--out", &out])).done();
    run(&["train", "--resume", &out, "--epochs", "2", "--data", &word(&copy), "--no-report"]).done();
    // Some are drawn for testing, so all are changed.
    for number in 0..12 {
        fs::write(copy.join(format!("dark/{number}.pgm")), picture(100 + number)).unwrap();
    }
    let error = run(&["train", "--resume", &out, "--epochs", "3"]).fails(6);
    assert!(error.contains("began with another content of its pictures (their names and sizes are the same)"), "{error}");
}

/// Three epochs, or two and one more, are the same run; a schedule that knows its end takes no other.
fn epochs_may_be_added() {
    let folder = tempfile::tempdir().unwrap();
    let data = mini_fashion();
    let at = |name: &str| word(folder.path().join(name));
    let train = |name: &str, epochs: &str, schedule: &str| {
        let out = at(name);
        run(&small_run(&data, &["--epochs", epochs, "--schedule", schedule, "--no-report", "--out", &out])).done();
        out
    };
    let (whole, parts) = (train("whole", "3", "constant"), train("parts", "2", "constant"));
    run(&["train", "--resume", &parts, "--epochs", "3", "--no-report"]).done();
    let bytes = |run: &str| fs::read(Path::new(run).join("last.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&parts), "the weights differ");
    let error = run(&["train", "--resume", &parts, "--epochs", "1"]).fails(2);
    assert!(error.contains("--epochs 1: this run has trained 3 epochs"), "{error}");

    let cosine = train("cosine", "1", "cosine");
    let error = run(&["train", "--resume", &cosine, "--epochs", "4"]).fails(2);
    assert!(error.contains("--epochs 4: ") && error.contains("cosine") && error.contains("--initial-weights"), "{error}");
    // What the message proposes can be done.
    let (recipe, weights, more) = (format!("{cosine}/config.toml"), format!("{cosine}/last.safetensors"), at("more"));
    let line = ["train", "--recipe", &recipe, "--initial-weights", &weights, "--epochs", "2", "--lr", "0.0001", "--out", &more];
    run(&[&line[..], &["--no-report"]].concat()).done();
}
