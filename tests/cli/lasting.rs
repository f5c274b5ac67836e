//! Runs that never lose work: killed at any moment, without room on the disk, without their device.

use crate::Needs::{Device, FileLimit};
use crate::Test;
use crate::interrupt::{signal, start, timeless, wait_for_lines};
use crate::support::{Ran, finish, finished_run, metrics, mini_fashion, program, run, small_run, word};
use nin_wgpu::rng::Stream;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("killed_at_random_moments", Device, killed_at_random_moments),
    ("a_lost_device_is_opened_again", Device, a_lost_device_is_opened_again),
    ("a_device_that_stays_lost_is_4", Device, a_device_that_stays_lost_is_4),
    ("without_room_the_old_checkpoint_stays", FileLimit, without_room_the_old_checkpoint_stays),
    ("the_weights_of_epochs_are_kept", Device, the_weights_of_epochs_are_kept),
];

/// What two runs have in common that learned the same.
fn same_run(one: &Path, other: &Path) {
    for file in ["last.safetensors", "best.safetensors"] {
        assert!(fs::read(one.join(file)).unwrap() == fs::read(other.join(file)).unwrap(), "{}: {file} differs", one.display());
    }
    assert_eq!(timeless(one), timeless(other), "{}", one.display());
}

/// `kill -9` at random moments of small runs, from their first millisecond on, each resumed until it is done: as many kills as
/// `NIN_WGPU_KILLS` says, or 8.
fn killed_at_random_moments() {
    let kills: usize = std::env::var("NIN_WGPU_KILLS").map_or(8, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let data = mini_fashion();
    let line = |out: &Path| -> Vec<String> {
        let out = word(out);
        let flags = ["--epochs", "3", "--batch-size", "16", "--limit-test", "16", "--checkpoint-every", "1", "--out", &out];
        small_run(&data, &flags).iter().map(ToString::to_string).collect()
    };
    let plain = folder.path().join("plain");
    let started = Instant::now();
    finish(&start(&line(&plain)).wait_with_output().unwrap()).done();
    let length = started.elapsed().as_millis() as u32;

    let mut rng = Stream::new(7, 0, 0, 0);
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        let out = folder.path().join(format!("run-{runs}"));
        runs += 1;
        assert!(runs < 10 + 4 * kills, "runs end before they can be killed");
        loop {
            let words = if out.join("config.toml").exists() { vec!["train".into(), "--resume".into(), word(&out)] } else { line(&out) };
            let mut child = start(&words);
            thread::sleep(Duration::from_millis(rng.below(length).into()));
            if killed < kills && child.try_wait().unwrap().is_none() {
                let ran = signal(child, "-KILL");
                // It may have ended in the meantime.
                if ran.code.is_none() {
                    killed += 1;
                    continue;
                }
                ran.done();
            } else {
                finish(&child.wait_with_output().unwrap()).done();
            }
            break;
        }
        same_run(&out, &plain);
        assert_eq!(fs::read_dir(out.join("state")).unwrap().count(), 2);
        fs::remove_dir_all(&out).unwrap();
    }
}

fn losing(arguments: &[&str], at: &str) -> Ran {
    finish(&program(arguments).env("NIN_WGPU_LOSE_DEVICE_AT", at).output().unwrap())
}

fn a_lost_device_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (data, path) = (mini_fashion(), word(&out));
    let arguments = small_run(&data, &["--checkpoint-every", "2", "--out", &path]);
    let ran = losing(&arguments, "0,3,3,5").done();
    assert_eq!(ran.stderr.matches("the device was lost").count(), 4, "{ran}");
    for words in ["checkpoint of step 0, attempt 1 of 3", "checkpoint of step 3, attempt 2 of 3", "checkpoint of step 4, attempt 1 of 3"] {
        assert!(ran.stderr.contains(words), "{words}: {ran}");
    }
    same_run(&out, finished_run());
    // Once more with a value that means nothing.
    let error = losing(&arguments, "soon").fails(2);
    assert!(error.contains("NIN_WGPU_LOSE_DEVICE_AT"), "{error}");
}

fn a_device_that_stays_lost_is_4() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (data, path) = (mini_fashion(), word(&out));
    let arguments = small_run(&data, &["-q", "--checkpoint-every", "2", "--out", &path]);
    let error = losing(&arguments, "3,3,3,3,5").fails(4);
    assert!(error.contains("--resume"), "{error}");
    run(&["train", "--resume", &word(&out)]).done();
    same_run(&out, finished_run());
}

/// Runs the program where no file may be larger than `blocks` of 512 bytes.
fn within_blocks(blocks: u32, arguments: &[&str]) -> Ran {
    let program = program(arguments);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &blocks.to_string()]);
    limited.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.env("MESA_SHADER_CACHE_DISABLE", "true").env("NIN_WGPU_NO_CACHE", "1");
    finish(&limited.output().unwrap())
}

fn without_room_the_old_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let data = mini_fashion();
    let at = |name: &str| folder.path().join(name);
    // Not even the first checkpoint: nothing begins.
    let out = word(at("none"));
    let error = within_blocks(100, &small_run(&data, &["-q", "--out", &out])).fails(1);
    assert!(error.contains("state") && error.contains("check free space"), "{error}");

    // Weights have room, 285 KiB, checkpoints, twice as large, have none.
    let out = word(at("run"));
    let words: Vec<String> =
        small_run(&data, &["--checkpoint-every", "1", "--epochs", "4", "--out", &out]).iter().map(ToString::to_string).collect();
    let mut child = start(&words);
    let is_running = wait_for_lines(&at("run"), 2, &mut child);
    let ran = signal(child, "-INT");
    if !is_running || ran.code == Some(0) {
        // A device too fast for this.
        return;
    }
    let state = at("run").join("state");
    let before = fs::read(state.join("manifest.json")).unwrap();
    let ran = within_blocks(800, &["train", "--resume", &out]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.errors()[0].contains("state") && ran.errors()[0].contains("check free space"), "{ran}");
    assert!(ran.stderr.contains("is not saved") && ran.stderr.contains("training goes on"), "{ran}");
    assert_eq!(fs::read(state.join("manifest.json")).unwrap(), before);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 2);
    run(&["train", "--resume", &out]).done();
    let plain = word(at("plain"));
    run(&small_run(&data, &["--epochs", "4", "--out", &plain])).done();
    same_run(&at("run"), &at("plain"));
}

fn the_weights_of_epochs_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let arguments = ["--epochs", "4", "--limit-train", "32", "--limit-test", "16", "--keep", "2", "--out"];
    run(&small_run(&mini_fashion(), &[&arguments[..], &[&word(&out)]].concat())).done();
    let kept: Vec<bool> = (1..=4).map(|epoch| out.join(format!("epoch-000{epoch}.safetensors")).exists()).collect();
    assert_eq!(kept, [false, false, true, true]);
    let read = |name: &str| fs::read(out.join(name)).unwrap();
    assert!(read("epoch-0004.safetensors") == read("last.safetensors") && read("epoch-0003.safetensors") != read("last.safetensors"));
    assert_eq!(metrics(&out).len(), 8);
}
