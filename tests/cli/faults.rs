//! Data sets and run folders with something wrong in them.

use crate::Needs::Device;
use crate::Test;
use crate::support::{cifar_record, finished_run, mini_fashion, run, small_run, tensors, word};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("data_that_cannot_be_used_is_6", Device, data_that_cannot_be_used_is_6),
    ("shapes_that_do_not_fit_name_both", Device, shapes_that_do_not_fit_name_both),
    ("divergence_is_7", Device, divergence_is_7),
    ("collapse_is_7", Device, collapse_is_7),
    ("another_run_is_refused_by_its_hash", Device, another_run_is_refused_by_its_hash),
    ("a_resumed_run_keeps_its_settings", Device, a_resumed_run_keeps_its_settings),
    ("a_damaged_checkpoint_is_6", Device, a_damaged_checkpoint_is_6),
    ("a_folder_that_cannot_be_written_is_one_line", Device, a_folder_that_cannot_be_written_is_one_line),
];

/// Trains on `data` into a folder that must not come to be; returns the error.
fn refused(data: &Path, model: &str, code: i32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = word(folder.path().join("run"));
    let line = [
        "train",
        "--model",
        model,
        "--data",
        &word(data),
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--limit-train",
        "2",
        "--limit-test",
        "2",
        "--out",
        &out,
    ];
    let error = run(&line).fails(code);
    assert!(!folder.path().join("run").exists(), "a run that never began left a folder: {error}");
    error
}

fn data_that_cannot_be_used_is_6() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    assert!(refused(&data.join("missing"), "nin-small", 6).contains("missing"));
    refused(&data, "nin-small", 6);
    // A label that is none.
    fs::write(data.join("data_batch_1.bin"), [cifar_record(3), cifar_record(10)].concat()).unwrap();
    assert!(refused(&data, "nin-cifar", 6).contains("data_batch_1.bin"));
    // Half a record.
    fs::write(data.join("data_batch_1.bin"), &cifar_record(3)[..1000]).unwrap();
    assert!(refused(&data, "nin-cifar", 6).contains("data_batch_1.bin"));
    fs::remove_file(data.join("data_batch_1.bin")).unwrap();
    // IDX files: cut short, of another kind, of lying size.
    for name in ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"] {
        fs::copy(Path::new(&mini_fashion()).join(name), data.join(name)).unwrap();
    }
    let images = data.join("train-images-idx3-ubyte.gz");
    let whole = fs::read(&images).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    for bytes in [&whole[..whole.len() / 2], &whole[..1], &[], b"no gzip at all", &flipped] {
        fs::write(&images, bytes).unwrap();
        assert!(refused(&data, "nin-small", 6).contains("train-images"), "{} bytes", bytes.len());
    }
    fs::remove_file(&images).unwrap();
    let plain = data.join("train-images-idx3-ubyte");
    for header in [[0u8, 0, 8, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 28, 0, 0, 0, 28], [0, 0, 13, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28]] {
        fs::write(&plain, header).unwrap();
        assert!(refused(&data, "nin-small", 6).contains("train-images"));
    }
}

fn shapes_that_do_not_fit_name_both() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data_batch_1.bin"), cifar_record(3).repeat(2)).unwrap();
    fs::write(folder.path().join("test_batch.bin"), cifar_record(3)).unwrap();
    let error = refused(folder.path(), "nin-small", 2);
    assert!(error.contains("3x32x32") && error.contains("1x28x28") && error.contains("0.0"), "{error}");
    let small = run(&["summary", "--model", "nin", "--image-size", "20"]).fails(2);
    assert!(small.contains("layer") && small.contains("window"), "{small}");
}

fn divergence_is_7() {
    let folder = tempfile::tempdir().unwrap();
    let out = word(folder.path().join("run"));
    let ran = run(&small_run(&mini_fashion(), &["-q", "--lr", "1e30", "--warmup-epochs", "0", "--epochs", "4", "--out", &out]));
    let error = ran.fails(7);
    assert!(error.contains("--lr") && error.contains("(conv2d) is the first layer whose output is not finite"), "{error}");
    assert!(error.contains("the checkpoint of step 0 is kept"), "{error}");
    // It is whole, and leads to the same end.
    assert_eq!(run(&["-q", "train", "--resume", &out]).fails(7), error);
}

/// A dead layer leaves nothing to learn from; what it takes to see that differs by where it is.
fn collapse_is_7() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| word(folder.path().join(name));
    let data = mini_fashion();
    let train = |more: &[&str]| {
        let flags = ["-q", "--limit-train", "240", "--batch-size", "4", "--epochs", "1", "--lr", "0.001"];
        run(&small_run(&data, &[&flags[..], more].concat())).fails(7)
    };
    let error = train(&["--head-bias", "-1000", "--out", &at("head")]);
    assert!(error.contains("all classes score the same") && error.contains("5.5 (relu) is the first layer"), "{error}");
    assert!(error.contains("the checkpoint of step 0 is kept") && error.contains("--warmup-epochs"), "{error}");

    let mut dead = tensors(&finished_run().join("last.safetensors"));
    let bias = dead.iter_mut().find(|tensor| tensor.name == "2.2.bias").unwrap();
    bias.data.fill(-1000.0);
    let file = folder.path().join("dead.safetensors");
    nin_wgpu::weights::save(&file, &dead, None).unwrap();
    let error = train(&["--initial-weights", &word(&file), "--out", &at("inner")]);
    assert!(error.contains("same answer") && error.contains("2.3 (relu) is the first layer"), "{error}");
}

/// Everything that changes what is learned, changed behind the program's back.
fn another_run_is_refused_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("run");
    copy_of_the_run(&copy);
    let refused = |words: &str| {
        let error = run(&["-q", "train", "--resume", &word(&copy)]).fails(6);
        assert!(error.contains(words), "{error}");
    };
    let config = fs::read_to_string(copy.join("config.toml")).unwrap();
    for (from, to) in [
        ("seed = 0", "seed = 1"),
        ("shuffle = true", "shuffle = false"),
        ("batch_size = 32", "batch_size = 16"),
        ("grad_accum = 1", "grad_accum = 2"),
        ("momentum = 0.9", "momentum = 0.8"),
        ("image_size = 28", "image_size = 32"),
        ("model = \"nin-small\"", "model = \"nin\""),
        ("flip = true", "flip = false"),
        ("optimizer = \"sgd\"", "optimizer = \"adam\""),
    ] {
        let changed = config.replace(from, to);
        assert_ne!(changed, config, "{from}");
        let changed = if to.contains("adam") { changed.replace("nesterov = true", "nesterov = false") } else { changed };
        fs::write(copy.join("config.toml"), changed).unwrap();
        refused("another configuration");
    }

    // One pixel in the middle of the training images.
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    for entry in fs::read_dir(mini_fashion()).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    let images = data.join("train-images-idx3-ubyte.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(&images).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes[16 + 50 * 784 + 400] ^= 1;
    let mut writer = flate2::write::GzEncoder::new(fs::File::create(&images).unwrap(), flate2::Compression::fast());
    writer.write_all(&bytes).unwrap();
    writer.finish().unwrap();
    fs::write(copy.join("config.toml"), config.replace(&mini_fashion(), &word(&data))).unwrap();
    refused("another data set");
    fs::write(copy.join("config.toml"), config).unwrap();
    run(&["train", "--resume", &word(&copy)]).done();
}

/// A copy of the finished run that may be changed.
fn copy_of_the_run(to: &Path) {
    for from in [finished_run().to_path_buf(), finished_run().join("state")] {
        let to = to.join(from.strip_prefix(finished_run()).unwrap());
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(&from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn a_resumed_run_keeps_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("run");
    copy_of_the_run(&copy);
    let out = word(&copy);
    for more in [&["--lr", "0.5"][..], &["--batch-size", "16"], &["--seed", "5"], &["--model", "nin"], &["--no-shuffle"]] {
        let error = run(&[&["train", "--resume", &out][..], more].concat()).fails(2);
        assert!(error.contains(more[0]), "{error}");
    }
    // A run that is complete stays as it is.
    let before = fs::read(copy.join("last.safetensors")).unwrap();
    run(&["train", "--resume", &out]).done();
    assert!(before == fs::read(copy.join("last.safetensors")).unwrap());
}

fn a_damaged_checkpoint_is_6() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("run");
    copy_of_the_run(&copy);
    let out = word(&copy);
    let files: Vec<_> = fs::read_dir(copy.join("state")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files.iter().chain([&copy.join("config.toml")]) {
        let whole = fs::read(file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] = flipped[whole.len() / 2].wrapping_add(1);
        let cases = if file.ends_with("config.toml") {
            vec![b"epochs = \"many".to_vec()]
        } else {
            vec![whole[..whole.len() / 3].to_vec(), flipped, Vec::new()]
        };
        for bytes in cases {
            fs::write(file, bytes).unwrap();
            run(&["train", "--resume", &out]).fails(6);
        }
        fs::write(file, whole).unwrap();
    }
    fs::remove_dir_all(copy.join("state")).unwrap();
    run(&["train", "--resume", &out]).fails(6);
}

fn a_folder_that_cannot_be_written_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let ran = run(&small_run(&mini_fashion(), &["-q", "--out", &word(file.join("run"))]));
    assert!(ran.fails(1).contains("file"), "{ran}");
}
