//! Start-up and its cache, and the two switches that must not change a single bit: where the images lie, and how long a
//! submission may take.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{Ran, finish, mini_fashion, program, run, sample, small_run, word};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("the_first_answer_comes_soon", Device, the_first_answer_comes_soon),
    ("pipelines_are_kept_and_damage_is_left_aside", Device, pipelines_are_kept_and_damage_is_left_aside),
    ("each_vector_width_has_its_compiled_kernels", Device, each_vector_width_has_its_compiled_kernels),
    ("a_cache_that_cannot_be_written_is_a_detail", Device, a_cache_that_cannot_be_written_is_a_detail),
    ("weights_do_not_depend_on_where_images_lie_or_how_work_is_cut", Device, weights_do_not_depend_on_where_images_lie_or_how_work_is_cut),
    ("a_limit_that_is_no_number_is_2", Nothing, a_limit_that_is_no_number_is_2),
];

/// With this and nothing else in the way: two seconds on two idle cores, and tests run beside each other.
const SOON: Duration = Duration::from_secs(10);

/// `infer` of one picture at -v, with caches of its own in `folder`, and how long it took.
fn infer(folder: &Path, more: &[(&str, &str)]) -> (Ran, Duration) {
    let mut command = program(&["infer", "-v", &sample()]);
    command.env("NIN_WGPU_CACHE_DIR", folder.join("ours"));
    // The driver's own.
    command.env("MESA_SHADER_CACHE_DIR", folder).env("XDG_CACHE_HOME", folder);
    command.envs(more.iter().copied());
    let started = Instant::now();
    let ran = finish(&command.output().unwrap()).done();
    (ran, started.elapsed())
}

fn has_pipeline_cache() -> bool {
    let devices = run(&["devices", "--json"]).done().json();
    devices[0]["features"].as_array().unwrap().iter().any(|feature| feature == "PIPELINE_CACHE")
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn the_first_answer_comes_soon() {
    let folder = tempfile::tempdir().unwrap();
    let (cold, cold_time) = infer(folder.path(), &[]);
    let (warm, warm_time) = infer(folder.path(), &[]);
    assert_eq!(cold.stdout, warm.stdout);
    assert!(cold.stdout.contains("Ankle boot"), "{cold}");
    assert!(cold_time < SOON && warm_time < SOON, "{cold_time:?} cold, {warm_time:?} warm");
}

fn pipelines_are_kept_and_damage_is_left_aside() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("ours");
    let (first, _) = infer(folder.path(), &[]);
    if !has_pipeline_cache() {
        assert!(files(&cache).is_empty() && !first.stderr.contains("pipeline cache"), "{first}");
        return;
    }
    assert!(first.stderr.contains("pipeline cache: none yet") && first.stderr.contains("written to"), "{first}");
    let [file] = &files(&cache)[..] else { panic!("{:?}", files(&cache)) };
    let whole = fs::read(file).unwrap();

    let (second, _) = infer(folder.path(), &[]);
    assert!(second.stderr.contains("bytes from"), "{second}");
    let mut flipped = fs::read(file).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], b"", b"another file"] {
        fs::write(file, damaged).unwrap();
        let (ran, _) = infer(folder.path(), &[]);
        assert!(ran.stderr.contains("is left aside") && ran.stderr.contains("written to"), "{ran}");
        assert_eq!(ran.stdout, first.stdout);
    }
    let (ran, _) = infer(folder.path(), &[]);
    assert!(ran.stderr.contains("bytes from") && ran.stdout == first.stdout, "{ran}");
}

/// Mesa 25.0 crashes on kernels that it compiled for vectors of another width.
fn each_vector_width_has_its_compiled_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let devices = run(&["devices", "--json"]).done().json();
    let is_llvmpipe = devices[0]["name"].as_str().unwrap().contains("llvmpipe");
    for width in ["128", "256", "128"] {
        let mut command = program(&["infer", &sample()]);
        command.env("NIN_WGPU_CACHE_DIR", folder.path()).env_remove("MESA_SHADER_CACHE_DIR").env("LP_NATIVE_VECTOR_WIDTH", width);
        let ran = finish(&command.output().unwrap()).done();
        assert!(ran.stdout.contains("Ankle boot"), "{ran}");
        assert_eq!(folder.path().join(format!("llvmpipe-{width}")).is_dir(), is_llvmpipe, "{width}");
    }
}

fn a_cache_that_cannot_be_written_is_a_detail() {
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder should be.
    fs::write(folder.path().join("ours"), "").unwrap();
    let (ran, _) = infer(folder.path(), &[]);
    assert_eq!(ran.stderr.contains("cannot be written"), has_pipeline_cache(), "{ran}");
    let (ran, _) = infer(folder.path(), &[("NIN_WGPU_NO_CACHE", "1")]);
    assert!(!ran.stderr.contains("pipeline cache"), "{ran}");
}

fn weights_do_not_depend_on_where_images_lie_or_how_work_is_cut() {
    let data = mini_fashion();
    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, variables: &[(&str, &str)]| {
        let out = folder.path().join(name);
        let mut command = program(&small_run(&data, &["-v", "--out", &word(&out)]));
        let ran = finish(&command.envs(variables.iter().copied()).output().unwrap()).done();
        let losses: Vec<String> = fs::read_to_string(out.join("metrics.jsonl"))
            .unwrap()
            .lines()
            .map(|line| line.split("\"lr\"").next().unwrap().into())
            .collect();
        let losses: Vec<String> = losses.into_iter().filter(|line| line.contains("\"step\"")).collect();
        (ran, fs::read(out.join("last.safetensors")).unwrap(), losses)
    };
    let (ran, weights, losses) = train("resident", &[]);
    assert!(ran.stderr.contains("of images stay on the device") && losses.len() == 6, "{ran}");
    let (ran, streamed, streamed_losses) = train("streamed", &[("NIN_WGPU_NO_RESIDENT_DATA", "1")]);
    assert!(ran.stderr.contains("uploaded step by step"), "{ran}");
    assert!(streamed == weights && streamed_losses == losses, "{losses:?}, streamed {streamed_losses:?}");
    let (_, cut, cut_losses) = train("cut", &[("NIN_WGPU_SUBMIT_MS", "0.5")]);
    assert!(cut == weights && cut_losses == losses, "{losses:?}, in short submissions {cut_losses:?}");
}

fn a_limit_that_is_no_number_is_2() {
    for value in ["long", "-1", "nan"] {
        let ran = finish(&program(&["infer", &sample()]).env("NIN_WGPU_SUBMIT_MS", value).output().unwrap());
        let error = ran.fails(2);
        assert!(error.contains("NIN_WGPU_SUBMIT_MS") && error.contains("milliseconds"), "{error}");
    }
}
