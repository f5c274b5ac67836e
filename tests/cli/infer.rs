//! `infer`: pictures of every kind, good ones among bad ones.

use crate::Needs::{Device, Linux, Nothing};
use crate::Test;
use crate::support::{announced_png, finish, grey_png, keys, program, program_path, project, run, run_with_stdin, sample, word};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

pub const TESTS: &[Test] = &[
    ("each_picture_gets_an_answer_or_an_error", Device, each_picture_gets_an_answer_or_an_error),
    ("text_answers_on_stdout_and_errors_on_stderr", Device, text_answers_on_stdout_and_errors_on_stderr),
    ("samples_are_named_rightly", Device, samples_are_named_rightly),
    ("a_picture_on_white_is_the_same_on_black", Device, a_picture_on_white_is_the_same_on_black),
    ("more_pictures_than_a_batch_keep_their_order", Device, more_pictures_than_a_batch_keep_their_order),
    ("bad_pictures_alone_are_6", Nothing, bad_pictures_alone_are_6),
    ("huge_headers_take_no_memory", Linux, huge_headers_take_no_memory),
];

/// Writes pictures that cannot be used into `folder` and returns their paths.
fn bad_pictures(folder: &Path) -> Vec<String> {
    let good = fs::read(sample()).unwrap();
    let jpeg = fs::read(project("tests/pictures/cmyk.jpg")).unwrap();
    let files: [(&str, Vec<u8>); 9] = [
        ("truncated.png", good[..good.len() / 2].to_vec()),
        ("truncated.jpg", jpeg[..jpeg.len() / 2].to_vec()),
        ("signature.png", good[..8].to_vec()),
        ("empty.png", Vec::new()),
        ("text.png", b"this is no picture\n".to_vec()),
        ("page.jpg", b"<html><body>404 Not Found</body></html>".to_vec()),
        ("huge.png", announced_png(30_000, 30_000)),
        ("vast.png", announced_png(100_000, 100_000)),
        ("nothing.png", announced_png(0, 10)),
    ];
    let mut paths = vec![word(folder.join("missing.png"))];
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
        paths.push(word(folder.join(name)));
    }
    paths
}

/// Checks the answer to a readable picture and returns it.
fn predictions(answer: &Value, count: usize) -> Vec<(usize, String, f64)> {
    assert_eq!(keys(answer), ["image", "predictions"], "{answer}");
    let list: Vec<(usize, String, f64)> = answer["predictions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|prediction| {
            assert_eq!(keys(prediction), ["index", "class", "probability"]);
            let class = prediction["class"].as_str().unwrap().to_string();
            (prediction["index"].as_u64().unwrap() as usize, class, prediction["probability"].as_f64().unwrap())
        })
        .collect();
    assert_eq!(list.len(), count, "{answer}");
    assert!(list.windows(2).all(|pair| pair[0].2 >= pair[1].2), "{answer}");
    let sum: f64 = list.iter().map(|prediction| prediction.2).sum();
    assert!(list.iter().all(|prediction| prediction.2 >= 0.0) && sum <= 1.0 + 1e-5, "{answer}");
    list
}

fn each_picture_gets_an_answer_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| word(folder.path().join(name));
    let bad = bad_pictures(folder.path());
    let nested = folder.path().join("folder/deeper");
    fs::create_dir_all(&nested).unwrap();
    grey_png(&folder.path().join("folder/b.png"), 40, 20, 1);
    grey_png(&nested.join("a.png"), 28, 28, 2);
    fs::write(folder.path().join("folder/notes.txt"), "no picture, so not asked for").unwrap();
    fs::create_dir(folder.path().join("void")).unwrap();
    fs::copy(project("tests/pictures/cmyk.jpg"), at("renamed.png")).unwrap();
    fs::copy(sample(), at("no-extension")).unwrap();
    image::ImageBuffer::from_fn(30, 50, |x, y| image::Luma([(x * y * 40) as u16])).save(at("deep.png")).unwrap();
    image::RgbaImage::from_fn(31, 17, |x, y| image::Rgba([200, x as u8, y as u8, (x * 8) as u8])).save(at("alpha.png")).unwrap();
    image::RgbImage::from_pixel(1, 1, image::Rgb([255, 0, 0])).save(at("one-pixel.png")).unwrap();

    let mut arguments = vec!["infer".to_string(), "--json".into(), sample()];
    let mut expected: Vec<(String, bool)> = vec![(sample(), true)];
    for path in &bad {
        arguments.push(path.clone());
        expected.push((path.clone(), false));
    }
    arguments.push(at("folder"));
    expected.extend([(word(folder.path().join("folder/b.png")), true), (word(nested.join("a.png")), true)]);
    arguments.extend([at("void"), at("none-*.png"), at("fold*/?.png")]);
    expected.extend([(at("void"), false), (at("none-*.png"), false), (word(folder.path().join("folder/b.png")), true)]);
    for name in ["animated.gif", "animated.webp", "animated.png", "cmyk.jpg", "orientation6.jpg"] {
        let path = word(project("tests/pictures").join(name));
        arguments.push(path.clone());
        expected.push((path, true));
    }
    for name in ["renamed.png", "no-extension", "deep.png", "alpha.png", "one-pixel.png"] {
        arguments.push(at(name));
        expected.push((at(name), true));
    }
    arguments.push("-".into());
    expected.push(("-".into(), true));

    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = run_with_stdin(&arguments, &fs::read(sample()).unwrap());
    assert_eq!(ran.code, Some(6), "{ran}");
    let answers = ran.json();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), expected.len(), "{ran}");
    for (answer, (name, is_good)) in answers.iter().zip(&expected) {
        assert_eq!(answer["image"].as_str(), Some(name.as_str()), "{ran}");
        if *is_good {
            predictions(answer, 5);
        } else {
            assert_eq!(keys(answer), ["image", "error"], "{answer}");
            let error = answer["error"].as_str().unwrap();
            assert!(!error.is_empty() && !error.contains('\n') && error.contains(name.as_str()), "{answer}");
        }
    }
    // The sample, the same without an ending, and the same through standard input.
    let same = |index: usize| &answers[index]["predictions"];
    let copy = answers.iter().position(|answer| answer["image"] == at("no-extension").as_str()).unwrap();
    assert_eq!(same(0), same(copy));
    assert_eq!(same(0), same(answers.len() - 1));
}

fn text_answers_on_stdout_and_errors_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let missing = word(folder.path().join("missing.png"));
    let ran = run(&["infer", "-q", &missing, &sample(), "--topk", "2"]);
    assert!(ran.fails(6).contains(&missing), "{ran}");
    assert_eq!(ran.stdout.lines().count(), 2, "{ran}");
    assert!(ran.stdout.starts_with(&sample()) && ran.stdout.lines().all(|line| line.ends_with(" %")), "{ran}");
    // No more classes than there are.
    let all = run(&["infer", "--json", &sample(), "--topk", "50"]).done().json();
    let sum: f64 = predictions(&all[0], 10).iter().map(|prediction| prediction.2).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{all}");
}

fn samples_are_named_rightly() {
    let answers = run(&["infer", "--json", &word(project("assets/samples"))]).done().json();
    let answers = answers.as_array().unwrap();
    assert!(answers.len() >= 12);
    // "test-00004-shirt", "drawing-trousers" and the class "T-shirt/top" in one form.
    let plain = |text: &str| {
        let letters: String = text.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
        let name = letters.trim_start_matches("test").trim_start_matches("drawing").trim_end_matches("top");
        name.trim_end_matches('s').to_string()
    };
    let is_right = |answer: &&Value| {
        let path = Path::new(answer["image"].as_str().unwrap());
        plain(answer["predictions"][0]["class"].as_str().unwrap()) == plain(path.file_stem().unwrap().to_str().unwrap())
    };
    let right = answers.iter().filter(is_right).count();
    let said: Vec<String> = answers.iter().map(|answer| format!("{}: {}", answer["image"], answer["predictions"][0])).collect();
    assert!(right * 5 >= answers.len() * 4, "{right} of {} are right:\n{}", answers.len(), said.join("\n"));
}

fn a_picture_on_white_is_the_same_on_black() {
    let folder = tempfile::tempdir().unwrap();
    let mut picture = image::open(sample()).unwrap().to_luma8();
    image::imageops::invert(&mut picture);
    let inverted = word(folder.path().join("inverted.png"));
    picture.save(&inverted).unwrap();
    let answers = run(&["infer", "--json", &sample(), &inverted]).done().json();
    let (black, white) = (predictions(&answers[0], 5), predictions(&answers[1], 5));
    assert_eq!(black[0].1, white[0].1, "{answers}");
    assert!((black[0].2 - white[0].2).abs() < 0.05, "{answers}");
}

fn more_pictures_than_a_batch_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..70 {
        grey_png(&folder.path().join(format!("{number:03}.png")), 28, 28, number);
    }
    fs::write(folder.path().join("040.png"), b"").unwrap();
    let ran = run(&["infer", "--json", "--topk", "10", &word(folder.path())]);
    assert_eq!(ran.code, Some(6), "{ran}");
    let answers = ran.json();
    assert_eq!(answers.as_array().unwrap().len(), 70);
    for (number, answer) in answers.as_array().unwrap().iter().enumerate() {
        assert_eq!(answer["image"], word(folder.path().join(format!("{number:03}.png"))).as_str());
        assert_eq!(answer.get("error").is_some(), number == 40, "{answer}");
    }
    // The place in a batch, and the batch, do not matter.
    for number in [0, 33, 69] {
        let path = word(folder.path().join(format!("{number:03}.png")));
        let alone = run(&["infer", "--json", "--topk", "10", &path]).done().json();
        for (one, other) in predictions(&alone[0], 10).iter().zip(predictions(&answers[number], 10)) {
            assert!(one.0 == other.0 && (one.2 - other.2).abs() < 1e-5, "{path}: {one:?} {other:?}");
        }
    }
}

fn bad_pictures_alone_are_6() {
    let folder = tempfile::tempdir().unwrap();
    for path in bad_pictures(folder.path()) {
        let ran = run(&["infer", &path]);
        let error = ran.fails(6);
        assert!(error.contains(&path), "{error}");
        assert_eq!(ran.stdout, "");
    }
    let empty = run_with_stdin(&["infer", "-"], b"");
    assert!(empty.fails(6).starts_with("error: -: "), "{empty}");
    let odd = run(&["infer", "new\nline\x1b[31m.png"]);
    let error = odd.fails(6);
    assert!(!error.contains('\x1b'), "{error}");
}

fn huge_headers_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    for (width, height) in [(30_000, 30_000), (100_000, 100_000), (u32::MAX >> 1, 1), (1, 70_000)] {
        let path = folder.path().join(format!("{width}x{height}.png"));
        fs::write(&path, announced_png(width, height)).unwrap();
        let words: Vec<std::ffi::OsString> = program(&["infer", "--json", &word(&path)]).get_args().map(Into::into).collect();
        // Half a gigabyte of address space, threads and the program itself included.
        let output =
            Command::new("sh").args(["-c", "ulimit -v 500000; exec \"$@\"", "sh"]).arg(program_path()).args(words).output().unwrap();
        let ran = finish(&output);
        assert_eq!(ran.code, Some(6), "{ran}");
        assert_eq!(keys(&ran.json()[0]), ["image", "error"], "{ran}");
    }
}
