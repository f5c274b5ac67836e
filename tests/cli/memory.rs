//! `--memory-budget` and `--batch-size auto`, and figures of memory that agree with each other.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{finish, mini_fashion, program, run, sample, small_run, word};
use std::fs;

pub const TESTS: &[Test] = &[
    ("summary_and_bench_agree", Device, summary_and_bench_agree),
    ("budgets_are_kept", Device, budgets_are_kept),
    ("a_budget_below_one_image_is_5", Device, a_budget_below_one_image_is_5),
    ("wrong_sizes_are_2", Nothing, wrong_sizes_are_2),
    ("an_automatic_batch_size_is_recorded", Device, an_automatic_batch_size_is_recorded),
    ("plans_follow_the_budget_without_an_adapter", Nothing, plans_follow_the_budget_without_an_adapter),
    ("nin_trains_at_batch_128_within_512_megabytes", Device, nin_trains_at_batch_128_within_512_megabytes),
];

fn peak(arguments: &[&str]) -> u64 {
    let ran = run(&[&["bench", "-q", "--json", "--steps", "1"], arguments].concat()).done();
    ran.json()["peak_gpu_bytes"].as_u64().unwrap()
}

fn summary_and_bench_agree() {
    for (model, batch) in [("nin-small", "1"), ("nin-small", "32"), ("nin-cifar", "2"), ("nin", "1")] {
        let summary = run(&["summary", "--model", model, "--batch-size", batch, "--json"]).done().json();
        for mode in ["train", "infer"] {
            let planned = summary["memory"][format!("{mode}_bytes")].as_f64().unwrap();
            let measured = peak(&["--model", model, "--batch-size", batch, "--mode", mode]) as f64;
            assert!((measured / planned - 1.0).abs() < 0.05, "{model} {mode} at batch {batch}: {planned} planned, {measured} measured");
        }
    }
}

fn budgets_are_kept() {
    let unlimited = peak(&["--batch-size", "64"]);
    let budget = unlimited / 2;
    let text = budget.to_string();
    for mode in ["train", "infer"] {
        let limited = peak(&["--batch-size", "64", "--mode", mode, "--memory-budget", &text]);
        assert!(limited <= budget, "{mode}: {limited} of {budget}");
    }
    let ran = program(&["bench", "--batch-size", "64", "--steps", "1"]).env("NIN_WGPU_MEMORY_BUDGET", &text).output().unwrap();
    let ran = finish(&ran).done();
    assert!(ran.stdout.contains("64 images a step in parts of"), "{ran}");
    let ran = run(&["eval", "--data", &mini_fashion(), "--limit", "40", "--memory-budget", "2M", "--json"]).done();
    assert_eq!(ran.json()["images"], 40);
    let pictures = [sample(), sample(), sample()];
    let line = [&["infer", "--memory-budget", "1M", "--json"][..], &pictures.each_ref().map(String::as_str)].concat();
    assert_eq!(run(&line).done().json().as_array().unwrap().len(), 3);
}

fn a_budget_below_one_image_is_5() {
    let (data, picture) = (mini_fashion(), sample());
    let lines: &[&[&str]] = &[
        &["summary", "--model", "nin"],
        &["dump", "plan", "--model", "nin", "--train"],
        &["bench", "-q"],
        &["bench", "-q", "--mode", "infer", "--batch-size", "auto"],
        &["eval", "--data", &data],
        &["infer", &picture],
    ];
    for line in lines {
        let error = run(&[*line, &["--memory-budget", "100k"]].concat()).fails(5);
        assert!(error.contains("100000") && error.contains("--memory-budget"), "{line:?}: {error}");
    }
    for batch_size in ["32", "auto"] {
        let folder = tempfile::tempdir().unwrap();
        let out = word(folder.path().join("run"));
        let error = run(&small_run(&data, &["--memory-budget", "100k", "--batch-size", batch_size, "--out", &out])).fails(5);
        assert!(error.contains("--memory-budget"), "{error}");
        assert!(!folder.path().join("run").exists(), "a folder was left behind");
    }
}

fn wrong_sizes_are_2() {
    for size in ["much", "0", "12Q", "-1M"] {
        for verb in [&["summary", "--model", "nin"][..], &["bench"], &["dump", "plan", "--model", "nin"]] {
            let ran = run(&[verb, &[&format!("--memory-budget={size}")]].concat());
            assert_eq!(ran.code, Some(2), "{size}: {ran}");
        }
    }
    let ran = finish(&program(&["summary", "--model", "nin"]).env("NIN_WGPU_MEMORY_BUDGET", "much").output().unwrap());
    assert!(ran.fails(2).contains("NIN_WGPU_MEMORY_BUDGET=much"), "{ran}");
    finish(&program(&["dump", "plan", "--model", "nin"]).env("NIN_WGPU_MEMORY_BUDGET", "").output().unwrap()).done();
}

fn is_documented_batch(batch: u64) -> bool {
    batch > 0 && (batch.is_power_of_two() || batch.is_multiple_of(8))
}

fn an_automatic_batch_size_is_recorded() {
    let bench = |budget: &str| {
        let line = ["bench", "-q", "--json", "--steps", "1", "--batch-size", "auto", "--memory-budget", budget];
        let json = run(&line).done().json();
        (json["batch_size"].as_u64().unwrap(), json["peak_gpu_bytes"].as_u64().unwrap())
    };
    let (small, large) = (bench("4M"), bench("12M"));
    assert!(is_documented_batch(small.0) && is_documented_batch(large.0) && small.0 < large.0, "{small:?} and {large:?}");
    assert!(small.1 <= 4_000_000 && large.1 <= 12_000_000 && large.1 > 6_000_000, "{small:?} and {large:?}");

    let folder = tempfile::tempdir().unwrap();
    let out = word(folder.path().join("run"));
    let data = mini_fashion();
    let line = small_run(&data, &["--epochs", "1", "--batch-size", "auto", "--memory-budget", "4M", "--out", &out]);
    let ran = run(&line).done();
    assert!(ran.stderr.contains("what is learned depends on it"), "{ran}");
    let config: toml::Table = fs::read_to_string(folder.path().join("run/config.toml")).unwrap().parse().unwrap();
    let batch = config["batch_size"].as_integer().unwrap();
    assert!(is_documented_batch(batch as u64) && batch < 96, "{config}");
    assert!(ran.stderr.contains(&format!("--batch-size {batch}")), "{ran}");
    assert_eq!(config["memory_budget"].as_integer(), Some(4_000_000));
    // It goes on with what was recorded, and says so where the budget is another.
    let resumed = run(&["train", "--resume", &out]).done();
    assert!(!resumed.stderr.contains("memory budget"), "{resumed}");
    let resumed = run(&["train", "--resume", &out, "--memory-budget", "6M"]).done();
    assert!(resumed.stderr.contains("the memory budget is another"), "{resumed}");
}

fn plans_follow_the_budget_without_an_adapter() {
    let plan = |budget: &str| {
        let ran = run(&["dump", "plan", "--model", "nin", "--train", "--batch-size", "128", "--memory-budget", budget]).done();
        let total = ran.stdout.lines().find_map(|line| line.strip_prefix("device memory: ")?.strip_suffix(" bytes")?.parse::<u64>().ok());
        (ran.stdout.clone(), total.unwrap_or_else(|| panic!("{ran}")))
    };
    let (text, total) = plan("512M");
    assert!(total <= 512_000_000 && text.starts_with("batch 128 in 2 passes of 64\n"), "{text}");
    assert!(text.contains(" <- most\n") && text.contains("slot 0: "), "{text}");
    let (text, total) = plan("300M");
    assert!(total <= 300_000_000 && text.starts_with("batch 128 in 3 passes of 43\n"), "{text}");
}

/// Bindings of 128 MiB, as WebGPU's default limits allow: a tensor of the whole batch would take 137 MiB. Two images are
/// enough to run a pass: the kernels compute whole ones.
fn nin_trains_at_batch_128_within_512_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let out = word(folder.path().join("run"));
    let data = mini_fashion();
    let line = ["train", "--model", "nin", "--data", &data, "--epochs", "1", "--limit-train", "128", "--limit-test", "1", "--batch-size"];
    let more = ["128", "--memory-budget", "512M", "--out", &out];
    let ran = program(&[&line[..], &more].concat()).env("NIN_WGPU_DEFAULT_LIMITS", "1").output().unwrap();
    let ran = finish(&ran).done();
    assert!(ran.stderr.contains("128 images each in parts of"), "{ran}");
    let memory = ran.stderr.lines().find_map(|line| line.strip_suffix(" MiB of device memory")?.rsplit(' ').next()?.parse::<f64>().ok());
    let memory = memory.unwrap_or_else(|| panic!("{ran}")) * f64::from(1 << 20);
    assert!((200e6..=512e6).contains(&memory), "{memory}: {ran}");
}
