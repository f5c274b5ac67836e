use super::*;
use crate::data::Loader;
use crate::data::Order;
use image::{Rgb, RgbImage};
use std::fs;

fn save(root: &Path, name: &str, width: u32, height: u32, color: [u8; 3]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(width, height, Rgb(color)).save(path).unwrap();
}

fn sample() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), "train/cat/b.png", 8, 6, [10, 20, 30]);
    save(root.path(), "train/cat/a/deep.png", 4, 4, [1, 2, 3]);
    save(root.path(), "train/dog/x.bmp", 40, 30, [200, 100, 0]);
    save(root.path(), "val/dog/y.png", 5, 5, [9, 9, 9]);
    fs::create_dir_all(root.path().join("val/cat")).unwrap();
    fs::write(root.path().join("train/dog/notes.txt"), "not a picture").unwrap();
    fs::write(root.path().join("train/dog/.hidden.png"), "not a picture").unwrap();
    root
}

fn options() -> OpenOptions {
    OpenOptions { target: Some((6, 8, 3)), ..OpenOptions::default() }
}

#[test]
fn pictures_of_mixed_sizes_come_in_one_size_and_sorted() {
    let root = sample();
    let set = crate::data::open(root.path().to_str().unwrap(), &options()).unwrap();
    assert_eq!(set.classes, ["cat", "dog"]);
    assert_eq!((set.train.len(), set.test.len(), set.shape()), (3, 1, [3, 6, 8]));
    let mut pixels = vec![0; 6 * 8 * 3];
    for (index, label, color) in [(0, 0, [1, 2, 3]), (1, 0, [10, 20, 30]), (2, 1, [200, 100, 0])] {
        assert_eq!(set.train.read(index, &mut pixels).unwrap(), label);
        assert!(pixels.chunks(3).all(|pixel| pixel == color), "{index}");
    }
    assert!(set.notes.iter().any(|note| note.contains("1 files without")));
    assert!(set.notes.iter().any(|note| note.contains("no pictures of this class")));
    let batches: Vec<_> = Loader::new(set.train.clone(), 2, Order::Sequential, 0, 0).unwrap().collect();
    assert_eq!(batches.len(), 2);
    // Without a target: the first picture's size.
    let set = open("x", root.path(), &OpenOptions::default()).unwrap();
    assert_eq!(set.shape(), [3, 4, 4]);
    let grey = OpenOptions { target: Some((2, 2, 1)), ..OpenOptions::default() };
    let set = open("x", root.path(), &grey).unwrap();
    let mut pixels = [0; 4];
    set.train.read(2, &mut pixels).unwrap();
    assert_eq!(pixels, [119; 4]);
}

#[test]
fn limits_keep_every_class() {
    let root = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        for n in 0..4 {
            save(root.path(), &format!("train/{class}/{n}.png"), 2, 2, [n; 3]);
        }
    }
    let limited = OpenOptions { limit_train: Some(2), ..options() };
    let set = open("x", root.path(), &limited).unwrap();
    let mut pixels = vec![0; 6 * 8 * 3];
    let labels: Vec<u32> = (0..2).map(|n| set.train.read(n, &mut pixels).unwrap()).collect();
    assert_eq!(labels, [0, 1]);
    assert!(set.test.is_empty());
    assert!(set.notes[0].contains("no test split"));
}

#[test]
fn faults_are_named() {
    let root = sample();
    let problem = |path: &Path| {
        let error = crate::data::open(path.to_str().unwrap(), &options()).err();
        error.expect("refused").to_string()
    };
    save(root.path(), "val/bird/z.png", 2, 2, [0; 3]);
    assert!(problem(root.path()).contains("has no class folder \"bird\""));
    fs::remove_dir_all(root.path().join("val/bird")).unwrap();
    fs::write(root.path().join("train/cat/broken.png"), "text").unwrap();
    let set = open("x", root.path(), &options()).unwrap();
    let error = set.train.read(2, &mut [0; 6 * 8 * 3]).unwrap_err().to_string();
    assert!(error.contains("broken.png") && error.contains("looks like text"), "{error}");
    let flat = tempfile::tempdir().unwrap();
    save(flat.path(), "train/a.png", 2, 2, [0; 3]);
    assert!(problem(flat.path()).contains("holds no class folders"));
    let four = OpenOptions { target: Some((2, 2, 4)), ..options() };
    assert!(open("x", root.path(), &four).is_err());
}

/// A flat folder of ten grey pictures of each class, one of them in colour where `is_coloured`.
fn flat(is_coloured: bool) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for class in ["ant", "bee"] {
        for n in 0..10u8 {
            let blue = if is_coloured && n == 3 { 200 } else { n };
            save(root.path(), &format!("{class}/{n}.png"), 4 + u32::from(n), 5, [n, n, blue]);
        }
    }
    root
}

/// First grey value of each picture of a split: which pictures they are.
fn numbers(source: &dyn Source) -> Vec<(u32, u8)> {
    let mut pixels = vec![0; source.shape().iter().product()];
    (0..source.len()).map(|index| (source.read(index, &mut pixels).unwrap(), pixels[0])).collect()
}

#[test]
fn a_test_split_is_drawn_from_a_flat_folder() {
    let root = flat(false);
    let opened = |path: &Path, share, seed| {
        let options = OpenOptions { target: Some((2, 2, 1)), val_split: Some(share), seed, ..OpenOptions::default() };
        crate::data::open(path.to_str().unwrap(), &options).unwrap()
    };
    let set = opened(root.path(), 0.3, 1);
    assert_eq!((set.classes.join(" "), set.train.len(), set.test.len(), set.val_split), ("ant bee".into(), 14, 6, Some(0.3)));
    let (train, test) = (numbers(set.train.as_ref()), numbers(set.test.as_ref()));
    assert_eq!(test.iter().filter(|(label, _)| *label == 0).count(), 3);
    let mut all = [train, test.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..2).flat_map(|label| (0..10).map(move |n| (label, n))).collect::<Vec<_>>());
    // The draw depends on seed and names alone, not on where the folder is.
    assert_eq!(test, numbers(opened(flat(false).path(), 0.3, 1).test.as_ref()));
    assert_ne!(test, numbers(opened(root.path(), 0.3, 2).test.as_ref()));
    assert!(set.notes.iter().any(|note| note.contains("6 of 20 pictures were drawn")), "{:?}", set.notes);
    // However small the share, a class gives one; however large, it keeps one.
    assert_eq!((opened(root.path(), 0.01, 1).test.len(), opened(root.path(), 0.99, 1).train.len()), (2, 2));
    let undrawn = opened(root.path(), 0.0, 1);
    assert_eq!((undrawn.train.len(), undrawn.test.len(), undrawn.val_split), (20, 0, None));
    // Limits hold for what was drawn.
    let options = OpenOptions { limit_train: Some(0), limit_test: Some(4), val_split: Some(0.3), seed: 1, ..options() };
    let limited = open("x", root.path(), &options).unwrap();
    assert_eq!((limited.train.len(), limited.test.len()), (0, 4));
}

#[test]
fn channels_follow_the_pictures() {
    let channels = |is_coloured, asked| {
        let root = flat(is_coloured);
        let options = OpenOptions { target: Some((2, 2, asked)), follow_colour: true, ..OpenOptions::default() };
        open("x", root.path(), &options).unwrap().shape()[0]
    };
    assert_eq!([channels(false, 1), channels(true, 1), channels(false, 3)], [1, 3, 3]);
}

#[test]
fn a_folder_of_folders_without_pictures_is_no_data_set() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    fs::write(root.path().join("a/b/notes.txt"), "text").unwrap();
    let error = crate::data::open(root.path().to_str().unwrap(), &options()).unwrap_err().to_string();
    assert!(error.contains("a folder of pictures per class, here or within"), "{error}");
}
