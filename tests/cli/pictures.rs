//! Pictures and folders as people have them: damaged ones, awkward names, splits and classes of every kind.

use crate::Needs::{Device, Linux, Nothing};
use crate::Test;
use crate::support::{keys, run, sample, small_run, word};
use nin_wgpu::weights::load;
use std::fs;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("a_decoder_that_panics_costs_its_picture", Device, a_decoder_that_panics_costs_its_picture),
    ("names_need_not_be_text", Linux, names_need_not_be_text),
    ("classes_are_matched_by_name", Device, classes_are_matched_by_name),
    ("a_report_on_other_classes_is_refused", Device, a_report_on_other_classes_is_refused),
    ("the_pictures_decide_how_others_are_framed", Device, the_pictures_decide_how_others_are_framed),
    ("one_class_is_refused_with_advice", Device, one_class_is_refused_with_advice),
    ("three_means_want_three_channels", Device, three_means_want_three_channels),
    ("awkward_folders_are_said_before_training", Linux, awkward_folders_are_said_before_training),
    ("what_is_not_used_is_said", Nothing, what_is_not_used_is_said),
    ("links_that_lead_nowhere_count_as_unreadable", Linux, links_that_lead_nowhere_count_as_unreadable),
];

/// Folders of a few pictures, each class with a colour of its own.
fn classes(root: &Path, names: &[&str], count: u8) {
    for (number, name) in names.iter().enumerate() {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        for n in 0..count {
            let mut colour = [20 + n; 3];
            colour[number % 3] = 220 - n;
            image::RgbImage::from_pixel(12, 12, image::Rgb(colour)).save(folder.join(format!("{n}.png"))).unwrap();
        }
    }
}

/// A valid TIFF of planes in tiles that reach over its edges.
fn planar_tiff() -> Vec<u8> {
    let mut bytes = b"II*\0".to_vec();
    let (tiles, tile) = (27u32, 256u32);
    let arrays = 8 + tiles * tile;
    bytes.extend((arrays + 8 * tiles + 6).to_le_bytes());
    bytes.extend(vec![90; (tiles * tile) as usize]);
    (0..tiles).for_each(|n| bytes.extend((8 + n * tile).to_le_bytes()));
    (0..tiles).for_each(|_| bytes.extend(tile.to_le_bytes()));
    (0..3).for_each(|_| bytes.extend(8u16.to_le_bytes()));
    let entries: [(u16, u16, u32, u32); 11] = [
        (256, 3, 1, 40),
        (257, 3, 1, 40),
        (258, 3, 3, arrays + 8 * tiles),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (284, 3, 1, 2),
        (322, 3, 1, 16),
        (323, 3, 1, 16),
        (324, 4, tiles, arrays),
        (325, 4, tiles, arrays + 4 * tiles),
    ];
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend([&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    bytes
}

fn a_decoder_that_panics_costs_its_picture() {
    let folder = tempfile::tempdir().unwrap();
    let planar = folder.path().join("planar.tif");
    fs::write(&planar, planar_tiff()).unwrap();
    let ran = run(&["infer", "--json", &word(&planar), &sample()]);
    assert_eq!(ran.code, Some(6), "{ran}");
    let answers = ran.json();
    assert_eq!((keys(&answers[0]), keys(&answers[1])), (vec!["image", "error"], vec!["image", "predictions"]), "{ran}");
    assert!(answers[0]["error"].as_str().unwrap().contains("planar.tif"), "{ran}");
    // In a data set it is left aside.
    let data = folder.path().join("data");
    classes(&data, &["ant", "bee"], 8);
    fs::copy(&planar, data.join("ant/planar.tif")).unwrap();
    let ran = run(&["data", "info", &word(&data), "--json"]).done();
    assert_eq!(ran.json()["unreadable"].as_array().unwrap().len(), 1, "{ran}");
    let out = word(folder.path().join("run"));
    let ran = run(&small_run(&word(&data), &["--epochs", "1", "--batch-size", "8", "--out", &out])).done();
    assert_eq!(ran.stderr.matches("planar.tif").count(), 1, "{ran}");
}

fn names_need_not_be_text() {
    #[cfg(unix)]
    {
        use crate::support::{finish, program};
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let names: [&[u8]; 2] = [b"caf\xe9.png", b"caf\xe8.png"];
        let paths = names.map(|name| folder.path().join(OsStr::from_bytes(name)));
        for path in &paths {
            fs::write(path, "no picture").unwrap();
        }
        let ran = finish(&program(&["infer", "--json"]).args(&paths).output().unwrap());
        assert_eq!(ran.code, Some(6), "{ran}");
        let answers = ran.json();
        for (index, name) in ["caf\\xE9.png", "caf\\xE8.png"].iter().enumerate() {
            let image = answers[index]["image"].as_str().unwrap();
            assert!(image.ends_with(name) && answers[index]["error"].as_str().unwrap().contains(name), "{ran}");
        }
        // The same in a folder, and as a data set's name.
        let ran = run(&["infer", "--json", &word(folder.path())]);
        assert_eq!((ran.code, ran.json().as_array().unwrap().len()), (Some(6), 2), "{ran}");
        let data = folder.path().join(OsStr::from_bytes(b"\xe9"));
        classes(&data, &["ant", "bee"], 2);
        finish(&program(&["data", "info", "--json"]).arg(&data).output().unwrap()).done();
    }
}

fn classes_are_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    classes(&at("abc"), &["apple", "bear", "cat"], 8);
    let weights = word(at("run/last.safetensors"));
    run(&small_run(&word(at("abc")), &["--epochs", "1", "--batch-size", "8", "--out", &word(at("run"))])).done();
    let eval = |data: &Path| run(&["eval", "--weights", &weights, "--data", &word(data), "--json"]);
    // Without `bear`, `cat` is still the third class.
    classes(&at("subset/test"), &["apple", "bear", "cat"], 4);
    fs::remove_dir_all(at("subset/test/bear")).unwrap();
    let report = eval(&at("subset")).done().json();
    let row = |label: usize| -> u64 { report["confusion"][label].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum() };
    assert_eq!((report["confusion"].as_array().unwrap().len(), [row(0), row(1), row(2)]), (3, [4, 0, 4]), "{report}");
    fs::rename(at("subset/test/cat"), at("subset/test/dog")).unwrap();
    let error = eval(&at("subset")).fails(6);
    assert!(error.contains("does not know the class \"dog\""), "{error}");
}

fn a_report_on_other_classes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), word(folder.path().join("run")));
    classes(&data, &["bear", "cat"], 8);
    run(&small_run(&word(&data), &["--epochs", "1", "--batch-size", "8", "--out", &out])).done();
    classes(&data, &["ant"], 8);
    let error = run(&["-q", "report", &out]).fails(6);
    assert!(error.contains("does not know the class \"ant\""), "{error}");
}

/// Grey squares on black that fill half of the frame, under a name that says nothing.
fn the_pictures_decide_how_others_are_framed() {
    let folder = tempfile::tempdir().unwrap();
    let square = |background: u8, shade: u8, corner: u32| {
        let inside = corner..corner + 14;
        image::GrayImage::from_fn(28, 28, |x, y| image::Luma([if inside.contains(&x) && inside.contains(&y) { shade } else { background }]))
    };
    let preprocess = |name: &str, background: u8| {
        let data = folder.path().join(name);
        for (class, shade) in [("one", 90), ("two", 160)] {
            fs::create_dir_all(data.join(class)).unwrap();
            (0..12)
                .for_each(|n| square(background, shade + n, u32::from(n) % 7 + 4).save(data.join(class).join(format!("{n}.png"))).unwrap());
        }
        let out = folder.path().join(format!("run-{name}"));
        run(&small_run(&word(&data), &["--epochs", "1", "--batch-size", "8", "--out", &word(&out)])).done();
        load(&out.join("last.safetensors")).unwrap().metadata.unwrap().preprocess
    };
    let on_black = preprocess("holiday", 0);
    assert_eq!((format!("{:?}", on_black.polarity).as_str(), on_black.fill), ("LightOnDark", Some(0.5)));
    // A name with `fashion` in it says nothing about pictures on grey.
    let on_grey = preprocess("fashion-mnist-x", 128);
    assert_eq!((format!("{:?}", on_grey.polarity).as_str(), on_grey.fill), ("Any", None));
}

fn one_class_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let nested = folder.path().join("nested");
    classes(&nested.join("pets"), &["ant", "bee"], 3);
    let error = run(&["-q", "train", "--model", "nin-small", "--data", &word(&nested)]).fails(6);
    assert!(error.contains("one class only, \"pets\"") && error.contains(&format!("--data {}", word(nested.join("pets")))), "{error}");
}

fn three_means_want_three_channels() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    classes(&data, &["ant", "bee"], 8);
    let words = ["--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.2", "--epochs", "1", "--batch-size", "8", "--out", &word(&out)];
    run(&small_run(&word(&data), &words)).done();
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("in_channels = 3"));
}

fn awkward_folders_are_said_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let train = |data: &Path| run(&["-q", "train", "--model", "nin-small", "--data", &word(data)]);
    classes(&at("ctrl"), &["tab\there", "bear"], 2);
    for ran in [train(&at("ctrl")), run(&["data", "info", &word(at("ctrl"))])] {
        let error = ran.fails(6);
        assert!(error.contains("cannot be printed") && error.contains("tab\\there") && !error.contains('\t'), "{error}");
    }
    classes(&at("folds/fold1"), &["ant", "bee"], 2);
    classes(&at("folds/fold2"), &["ant", "bee"], 2);
    let error = train(&at("folds")).fails(6);
    assert!(error.contains("all hold the same folders") && error.contains("train and val or test"), "{error}");
}

fn what_is_not_used_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for split in ["Training", "Testing", "extra"] {
        classes(&at("set").join(split), &["ant", "bee"], 3);
    }
    fs::copy(sample(), at("set/overview.png")).unwrap();
    classes(&at("set/Training/ant"), &[".ipynb_checkpoints", "__MACOSX", "@eaDir"], 1);
    let ran = run(&["data", "info", "--json", &word(at("set"))]).done();
    let info = ran.json();
    assert_eq!((info["train"].as_u64(), info["test"].as_u64(), info["classes"].as_array().unwrap().len()), (Some(6), Some(6), 2), "{ran}");
    for said in ["not used beside Training/ and Testing/: the folders \"extra\"", "such as \"overview.png\""] {
        assert!(ran.stderr.contains(said), "{ran}");
    }
    classes(&at("vehicles"), &["bus", "car", "train"], 2);
    let info = run(&["data", "info", "--json", &word(at("vehicles"))]).done().json();
    assert_eq!((info["train"].as_u64(), info["classes"][2]["name"].as_str()), (Some(6), Some("train")), "{info}");
}

fn links_that_lead_nowhere_count_as_unreadable() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        classes(&data, &["ant", "bee"], 3);
        for name in ["ant/zzz.png", "ant/.#000.png", "bee/notes.txt", "cow"] {
            symlink("/nowhere/x", data.join(name)).unwrap();
        }
        let ran = run(&["data", "info", "--json", &word(&data)]).done();
        let info = ran.json();
        let files: Vec<&str> = info["unreadable"].as_array().unwrap().iter().map(|entry| entry["file"].as_str().unwrap()).collect();
        assert_eq!(files.len(), 2, "{ran}");
        assert!(files[0].ends_with("cow") && files[1].ends_with("ant/zzz.png") && info["train"] == 6, "{ran}");
        assert!(info["unreadable"][0]["reason"].as_str().unwrap().contains("a link to /nowhere/x"), "{ran}");
    }
}
