//! `data`, and training on folders of pictures as people have them.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::loopback::{Server, honest, not_found, redirect};
use crate::support::{finish, keys, metrics, mini_fashion, program, run, word};
use image::{Rgb, RgbImage};
use nin_wgpu::weights::load;
use serde_json::Value;
use std::fs;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("sets_are_listed", Nothing, sets_are_listed),
    ("info_counts_and_measures", Nothing, info_counts_and_measures),
    ("info_finds_unreadable_pictures", Nothing, info_finds_unreadable_pictures),
    ("downloads_that_fail_leave_nothing", Nothing, downloads_that_fail_leave_nothing),
    ("a_missing_set_says_how_to_get_it", Device, a_missing_set_says_how_to_get_it),
    ("a_flat_folder_needs_no_flags", Device, a_flat_folder_needs_no_flags),
    ("unreadable_pictures_are_left_aside", Device, unreadable_pictures_are_left_aside),
    ("val_split_is_for_folders_without_one", Device, val_split_is_for_folders_without_one),
];

fn sets_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let svhn = folder.path().join("svhn");
    fs::create_dir(&svhn).unwrap();
    fs::write(svhn.join("train_32x32.mat"), "too short").unwrap();
    let list = run(&["data", "list", "--json", "--data-dir", &word(folder.path())]).done().json();
    let sets = list.as_array().unwrap();
    let names: Vec<&str> = sets.iter().map(|set| set["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"]);
    assert_eq!((&sets[4]["state"], &sets[4]["path"]), (&Value::from("incomplete"), &Value::from(word(&svhn))));
    assert_eq!(sets[4]["faults"].as_array().unwrap().len(), 2, "{}", sets[4]);
    let text = run(&["data", "list", "--data-dir", &word(folder.path())]).done().stdout;
    assert!(text.contains("incomplete") && text.lines().count() == 6, "{text}");
}

fn info_counts_and_measures() {
    let folder = tempfile::tempdir().unwrap();
    let sheet = folder.path().join("sheet.png");
    let report = run(&["data", "info", &mini_fashion(), "--json", "--sheet", &word(&sheet), "--columns", "3"]).done().json();
    assert_eq!(
        keys(&report),
        ["name", "path", "train", "test", "shape", "sizes", "mean", "std", "measured", "classes", "unreadable", "notes"]
    );
    assert_eq!((&report["train"], &report["test"], &report["measured"]), (&3000.into(), &1000.into(), &3000.into()));
    assert_eq!(report["shape"], serde_json::json!([1, 28, 28]));
    let classes = report["classes"].as_array().unwrap();
    assert_eq!((classes.len(), &classes[9]["name"], &classes[9]["test"]), (10, &"Ankle boot".into(), &100.into()));
    // The whole set's published figures are 0.2860 and 0.3530.
    let figure = |key: &str| report[key][0].as_f64().unwrap();
    assert!((figure("mean") - 0.286).abs() < 0.01 && (figure("std") - 0.353).abs() < 0.01, "{report}");
    let sheet = image::open(sheet).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (3 * 58 + 2, 10 * 58 + 2));
    let text = run(&["data", "info", &mini_fashion()]).done().stdout;
    assert!(text.contains("3,000 for training, 1,000 for testing") && text.contains("1x28x28"), "{text}");
    let missing = run(&["data", "info", &word(folder.path().join("nowhere"))]).fails(6);
    assert!(missing.contains("svhn"), "{missing}");
}

/// A flat folder of `count` coloured pictures of different sizes of each class, told apart by their brightness.
fn colour_folder(root: &Path, count: u32) {
    for (class, name) in ["dunkel", "hell"].iter().enumerate() {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        for n in 0..count {
            let (width, height) = (30 + n % 7, 24 + n % 5);
            let colour = if class == 1 { [220, 180, (n * 5 % 100) as u8] } else { [30, 60, (n * 7 % 100) as u8] };
            let picture = RgbImage::from_fn(width, height, |x, y| Rgb(if (x + y) % 4 == 0 { [120, 110, 40] } else { colour }));
            picture.save(folder.join(format!("{n}.png"))).unwrap();
        }
    }
}

fn info_finds_unreadable_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("bilder");
    colour_folder(&data, 4);
    fs::write(data.join("dunkel/broken.png"), "no picture").unwrap();
    let sheet = word(folder.path().join("sheet.png"));
    let ran = run(&["data", "info", &word(&data), "--json", "--sheet", &sheet]).done();
    let report = ran.json();
    assert!(ran.stderr.contains("broken.png"), "{ran}");
    assert_eq!((report["unreadable"].as_array().unwrap().len(), &report["train"]), (1, &9.into()), "{report}");
    assert_eq!(report["shape"], serde_json::json!([3, null, null]));
    assert_eq!(report["sizes"], serde_json::json!({"width": [30, 33], "height": [24, 27]}));
    assert!(Path::new(&sheet).is_file());
}

fn downloads_that_fail_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fetch = |mirror: &str| run(&["data", "fetch", "mnist", "-q", "--data-dir", &word(folder.path()), "--mirror", mirror]);
    let wrong = Server::start(|request| honest(request, b"not what it should be"));
    let message = fetch(&wrong.url).fails(6);
    assert!(message.contains("train-images-idx3-ubyte.gz") && message.contains("--mirror"), "{message}");
    assert_eq!(wrong.requests()[0].path, "/mnist/train-images-idx3-ubyte.gz");
    let missing = Server::start(|_| not_found());
    assert!(fetch(&missing.url).fails(1).contains("status 404"));
    let circle = Server::start(|request| redirect(&request.path));
    assert!(fetch(&circle.url).fails(1).contains("redirects"));
    // A port that nobody listens at: one that was free a moment ago.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    fetch(&format!("http://127.0.0.1:{port}")).fails(1);
    fetch("no address").fails(1);
    assert!(!folder.path().join("mnist").exists());
    let by_environment = finish(
        &program(&["data", "fetch", "svhn", "-q", "--data-dir", &word(folder.path())]).env("NIN_WGPU_MIRROR", &wrong.url).output().unwrap(),
    );
    assert!(by_environment.fails(1).contains("announces 21 bytes instead of 182040794"), "{by_environment}");
}

fn a_missing_set_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["train", "-q", "--model", "nin-cifar", "--data", "cifar10", "--data-dir", &word(folder.path())]);
    command.env("XDG_DATA_HOME", folder.path()).env("HOME", folder.path()).env("APPDATA", folder.path());
    let message = finish(&command.output().unwrap()).fails(6);
    assert!(message.contains("nin-wgpu data fetch cifar10"), "{message}");
}

fn a_flat_folder_needs_no_flags() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("my pictures");
    colour_folder(&data, 30);
    let (data, out) = (word(&data), word(folder.path().join("run")));
    // Flags only to be quick: none says anything about the pictures.
    let ran = run(&["train", "--model", "nin-small", "--data", &data, "--out", &out, "--epochs", "6", "--batch-size", "9"]).done();
    assert!(ran.stderr.contains("6 of 60 pictures were drawn") && ran.stderr.contains("gets 3 channels"), "{ran}");
    let lines = metrics(Path::new(&out));
    let last = lines.last().unwrap();
    assert_eq!(last["epoch"], 6);
    let best = lines.iter().filter_map(|line| line.get("test_acc")?.as_f64()).fold(0.0, f64::max);
    assert!(best > 0.9, "light and dark are not hard to tell: {last}");
    let weights = word(Path::new(&out).join("best.safetensors"));
    let metadata = load(Path::new(&weights)).unwrap().metadata.unwrap();
    assert_eq!((metadata.classes, metadata.preprocess.channels), (vec!["dunkel".to_string(), "hell".into()], 3));
    let [mean, std] = [metadata.preprocess.mean, metadata.preprocess.std];
    assert!((mean[0] - 0.485).abs() < 0.02 && (std[0] - 0.32).abs() < 0.03 && mean[2] < 0.25, "{mean:?} {std:?}");
    // Evaluation finds the same pictures for testing.
    let report = run(&["eval", "--weights", &weights, "--data", &data, "--json"]).done().json();
    assert_eq!(report["images"], 6);
    assert!((report["top1"].as_f64().unwrap() - best).abs() < 1e-9, "{report}");
    let picture = word(Path::new(&data).join("hell/3.png"));
    let answer = run(&["infer", "--json", "--weights", &weights, &picture]).done().json();
    assert_eq!(answer[0]["predictions"][0]["class"], "hell");
    run(&["train", "--resume", &out]).done();
}

fn unreadable_pictures_are_left_aside() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("pictures");
    colour_folder(&data, 30);
    for n in 0..7 {
        fs::write(data.join(format!("dunkel/broken-{n}.png")), if n == 0 { &b""[..] } else { b"no picture" }).unwrap();
    }
    let (data, at) = (word(&data), |name: &str| word(folder.path().join(name)));
    let line = |out: &str, more: &[&str]| {
        let mut line = vec!["train", "--model", "nin-small", "--data", &data, "--out", out, "--epochs", "1", "--batch-size", "8"];
        line.extend(more);
        run(&line)
    };
    let ran = line(&at("run"), &[]).done();
    assert_eq!(ran.stderr.matches("note: left aside: ").count(), 5, "{ran}");
    let log = fs::read_to_string(at("run") + "/train.log").unwrap();
    assert_eq!((0..7).filter(|n| log.contains(&format!("broken-{n}.png"))).count(), 7, "{log}");
    // The same pictures stand in each time.
    line(&at("again"), &[]).done();
    let weights = |run: &str| fs::read(at(run) + "/last.safetensors").unwrap();
    assert!(weights("run") == weights("again"));
    let message = line(&at("strict"), &["-q", "--max-bad", "2"]).fails(6);
    assert!(message.contains("broken-") && message.contains("--max-bad"), "{message}");
}

fn val_split_is_for_folders_without_one() {
    let message = run(&["train", "-q", "--model", "nin-small", "--data", &mini_fashion(), "--val-split", "0.2"]).fails(2);
    assert!(message.contains("--val-split is for folders of pictures"), "{message}");
    let message = run(&["train", "-q", "--model", "nin-small", "--data", &mini_fashion(), "--val-split", "1"]).fails(2);
    assert!(message.contains("--val-split must be at least 0 and below 1"), "{message}");
}
