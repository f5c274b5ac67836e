//! Arguments that cannot be, machines without an adapter, and verbs that need none.

use crate::Needs::{Device, Linux, Nothing};
use crate::Test;
use crate::support::{finish, finished_run, mini_fashion, program, project, run, sample, word};
use std::fs;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("usage_errors_are_2", Nothing, usage_errors_are_2),
    ("variables_that_mean_nothing_are_2", Nothing, variables_that_mean_nothing_are_2),
    ("a_backend_without_adapters_is_3", Linux, a_backend_without_adapters_is_3),
    ("help_and_version_are_results", Nothing, help_and_version_are_results),
    ("dump_needs_no_adapter", Nothing, dump_needs_no_adapter),
    ("a_closed_pipe_is_no_error", Nothing, a_closed_pipe_is_no_error),
    ("a_full_disk_is_1", Linux, a_full_disk_is_1),
    ("no_adapter_is_3_and_says_what_to_install", Linux, no_adapter_is_3_and_says_what_to_install),
    ("bad_pictures_are_6_without_an_adapter", Linux, bad_pictures_are_6_without_an_adapter),
    ("a_device_that_is_not_there_is_3", Device, a_device_that_is_not_there_is_3),
    ("devices_have_the_documented_keys", Device, devices_have_the_documented_keys),
    ("a_device_is_chosen_by_index_name_and_backend", Device, a_device_is_chosen_by_index_name_and_backend),
    ("run_folders_are_not_overwritten", Device, run_folders_are_not_overwritten),
];

fn usage_errors_are_2() {
    let data = mini_fashion();
    let folder = tempfile::tempdir().unwrap();
    let empty = word(folder.path());
    let lines: &[&[&str]] = &[
        &[],
        &["nonsense"],
        &["--frobnicate"],
        &["-q", "-v", "devices"],
        &["summary"],
        &["summary", "--model", "vgg"],
        &["summary", "--model", "nin", "--batch-size", "0"],
        &["summary", "--model", "nin", "--image-size", "8"],
        &["dump", "plan"],
        &["dump", "nothing", "--model", "nin"],
        &["infer"],
        &["infer", "x.png", "--topk", "0"],
        &["eval", "--data", "mnist", "--split", "validation"],
        &["train", "--model", "nin-small"],
        &["train", "--data", &data],
        &["train", "--model", "vgg", "--data", &data],
        &["train", "--model", "nin-small", "--data", &data, "--epochs", "x"],
        &["train", "--model", "nin-small", "--data", &data, "--lr", "-1"],
        &["train", "--model", "nin-small", "--data", &data, "--lr", "nan"],
        &["train", "--model", "nin-small", "--data", &data, "--batch-size", "0"],
        &["train", "--model", "nin-small", "--data", &data, "--dropout", "1.5"],
        &["train", "--model", "nin-small", "--data", &data, "--std", "0"],
        &["train", "--model", "nin-small", "--data", &data, "--mean", "1,2"],
        &["train", "--model", "nin-small", "--data", &data, "--optimizer", "lion"],
        &["train", "--model", "nin-small", "--data", &data, "--log-every", "0"],
        &["train", "--model", "nin-small", "--data", &data, "--image-size", "0"],
        &["train", "--resume", &empty],
        &["train", "--resume", &empty, "--initial-weights", "x.safetensors"],
        &["train", "--model", "nin-small", "--data", &data, "--resume", &empty, "--initial-weights", "x"],
    ];
    for line in lines {
        let ran = run(line);
        assert_eq!(ran.code, Some(2), "{line:?}: {ran}");
        assert_eq!(ran.stdout, "", "{line:?}");
        // A bare call prints the help.
        assert!(line.is_empty() || ran.stderr.starts_with("error: "), "{line:?}: {ran}");
    }
}

fn variables_that_mean_nothing_are_2() {
    let with = |name: &str, value: &str| finish(&program(&["recipes"]).env(name, value).output().unwrap());
    for (name, value, wanted) in [
        ("WGPU_BACKEND", "nonsense", "vulkan, vk, metal"),
        ("WGPU_BACKEND", "vulkan,nonsense", "vulkan, vk, metal"),
        ("NIN_WGPU_MATRIX_UNITS", "of", "off, emulated, small-subgroups"),
        ("NIN_WGPU_KERNELS", "gpu", "cpu, integrated, discrete"),
        ("NIN_WGPU_SPIRV", "naga", "own, wgpu"),
        ("NIN_WGPU_ROBUST_ACCESS", "no", "on, off"),
        ("NIN_WGPU_HALF_FAULT", "matrix_unit", "matrix_units, storage"),
        ("NIN_WGPU_NO_CACHE", "yes", "1 (on) or 0 (off)"),
        ("NIN_WGPU_NO_FUSION", "true", "1 (on) or 0 (off)"),
        ("NIN_WGPU_DEFAULT_LIMITS", "2", "1 (on) or 0 (off)"),
        ("NIN_WGPU_SUBMIT_MS", "soon", "milliseconds"),
        ("NIN_WGPU_PICTURE_CACHE", "1G", "MiB"),
        ("NIN_WGPU_LOSE_DEVICE_AT", "7;30", "updates"),
        ("NIN_WGPU_MEMORY_BUDGET", "12Q", "512M"),
    ] {
        let error = with(name, value).fails(2);
        assert!(error.contains(&format!("{name}={value}")) && error.contains(wanted), "{error}");
    }
    // A variable that is none is said, with the one that is meant; one that is set to nothing is not set.
    let ran = with("NIN_WGPU_NO_CASH", "1").done();
    assert!(ran.stderr.contains("NIN_WGPU_NO_CASH is no variable") && ran.stderr.contains("NIN_WGPU_NO_CACHE meant?"), "{ran}");
    assert_eq!(with("WGPU_BACKEND", "").done().stderr, "");
}

fn a_backend_without_adapters_is_3() {
    let error = finish(&program(&["bench"]).env("WGPU_BACKEND", "metal").output().unwrap()).fails(3);
    assert!(
        error.contains("WGPU_BACKEND=metal: this system has no such backend, only vulkan, gl") && !error.contains("apt install"),
        "{error}"
    );
}

fn help_and_version_are_results() {
    let version = run(&["--version"]).done();
    assert!(version.stdout.starts_with("nin-wgpu "), "{version}");
    for verb in ["devices", "summary", "train", "eval", "infer", "bench", "dump", "check"] {
        let help = run(&[verb, "--help"]).done();
        assert!(help.stdout.contains("Usage: nin-wgpu") && help.stderr.is_empty(), "{help}");
    }
}

fn dump_needs_no_adapter() {
    for (what, golden) in [("graph", "graph"), ("plan", "plan"), ("schedule", "schedule")] {
        for (flags, purpose) in [(&["--train"][..], "train"), (&[], "infer")] {
            let mut command = without_adapters(&[&["dump", what, "--model", "nin-small", "--batch-size", "2"][..], flags].concat());
            let ran = finish(&command.output().unwrap()).done();
            let expected = fs::read_to_string(project(&format!("tests/goldens/dumps/nin-small-{purpose}-{golden}.txt"))).unwrap();
            // A plan begins with what the model takes in all.
            let (head, dump) = match ran.stdout.split_once("temporaries: ") {
                Some((head, _)) if what == "plan" => ran.stdout.split_at(head.rfind('\n').map_or(0, |end| end + 1)),
                _ => ("", ran.stdout.as_str()),
            };
            assert_eq!(head.starts_with("batch 2 in 1 pass of 2\ndevice memory: "), what == "plan", "{head}");
            assert_eq!(dump, expected.replace("\r\n", "\n"), "{what} {purpose}");
        }
    }
}

fn a_closed_pipe_is_no_error() {
    let mut child =
        program(&["dump", "schedule", "--model", "nin", "--train"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = finish(&child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran}");
}

fn a_full_disk_is_1() {
    for line in [&["summary", "--model", "nin", "--json"][..], &["dump", "plan", "--model", "nin"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ran = finish(&program(line).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap());
        assert!(ran.fails(1).contains("standard output"), "{ran}");
    }
}

/// The program on a machine without a Vulkan driver.
fn without_adapters(arguments: &[&str]) -> Command {
    let mut command = program(arguments);
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(variable, "/nonexistent/driver.json");
    }
    command.env("WGPU_BACKEND", "vulkan").env_remove("NIN_WGPU_DEVICE").env_remove("WGPU_ADAPTER_NAME");
    command
}

fn no_adapter_is_3_and_says_what_to_install() {
    let (data, picture) = (mini_fashion(), sample());
    let lines: &[&[&str]] = &[
        &["devices"],
        &["devices", "--json"],
        &["infer", &picture],
        &["infer", "--json", &picture],
        &["check", "--quick"],
        &["bench"],
        &["train", "--model", "nin-small", "--data", &data],
        &["eval", "--data", &data],
    ];
    for line in lines {
        let ran = finish(&without_adapters(line).output().unwrap());
        let error = ran.fails(3);
        assert!(error.contains("apt install mesa-vulkan-drivers") && error.contains("dnf install"), "{line:?}: {error}");
        assert_eq!(ran.stdout, if *line == ["devices", "--json"] { "[]\n" } else { "" }, "{line:?}");
    }
}

fn bad_pictures_are_6_without_an_adapter() {
    let ran = finish(&without_adapters(&["infer", "/nonexistent/picture.png"]).output().unwrap());
    let error = ran.fails(6);
    assert!(error.contains("/nonexistent/picture.png"), "{error}");
}

fn a_device_that_is_not_there_is_3() {
    let picture = sample();
    for line in
        [&["--device", "nonsense", "infer", &picture][..], &["infer", &picture, "--device", "99"], &["check", "--device", "nonsense"]]
    {
        let ran = run(line);
        let error = ran.fails(3);
        assert!(error.contains("devices"), "{error}");
        assert_eq!(ran.stdout, "");
    }
    let ran = finish(&program(&["infer", &picture]).env("NIN_WGPU_DEVICE", "nonsense").output().unwrap());
    assert!(ran.fails(3).contains("nonsense"), "{ran}");
}

fn devices_have_the_documented_keys() {
    let devices = run(&["devices", "--json"]).done().json();
    let devices = devices.as_array().unwrap();
    assert!(!devices.is_empty());
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(crate::support::keys(device), ["index", "name", "backend", "type", "driver", "limits", "features", "cores"]);
        assert_eq!(device["index"], index);
        assert!(device["limits"]["max_storage_buffer_binding_size"].as_u64() >= Some(128 << 20));
        assert!(device["features"].is_array());
    }
    let text = run(&["devices"]).done().stdout;
    assert_eq!(text.lines().count(), devices.len() + 1, "{text}");
}

fn a_device_is_chosen_by_index_name_and_backend() {
    let devices = run(&["devices", "--json"]).done().json();
    let text = |key: &str| devices[0][key].as_str().unwrap().to_string();
    let (name, backend) = (text("name"), text("backend"));
    let part: String = name.chars().take(6).collect();
    for spec in ["0", &part.to_uppercase(), &backend, ""] {
        let ran = run(&["infer", &sample(), "-v", "--device", spec]).done();
        assert!(ran.stderr.contains(&name), "--device {spec}: {ran}");
    }
}

fn run_folders_are_not_overwritten() {
    let out = word(finished_run());
    let before = fs::read(finished_run().join("last.safetensors")).unwrap();
    let ran = run(&["train", "--model", "nin-small", "--data", &mini_fashion(), "--limit-train", "32", "--out", &out]);
    assert!(ran.fails(2).contains("--resume"), "{ran}");
    assert!(before == fs::read(finished_run().join("last.safetensors")).unwrap());
}
