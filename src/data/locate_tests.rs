use super::*;
use crate::data::Split;
use crate::data::cifar::tests::record;
use crate::data::idx::tests::{gzip, image_file, label_file};
use std::fs;

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Three training images and two test images of 4x4.
fn write_idx(folder: &Path) {
    write(folder, "train-images-idx3-ubyte", &image_file(3, 4, 4));
    write(folder, "train-labels-idx1-ubyte.gz", &gzip(&label_file(&[1, 2, 3])));
    write(folder, "t10k-images.idx3-ubyte", &gzip(&image_file(2, 4, 4)));
    write(folder, "t10k-labels.idx1-ubyte", &label_file(&[9, 0]));
}

fn open_at(path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    open(path.to_str().unwrap(), options)
}

fn problem(path: &Path) -> String {
    let message = open_at(path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn in_folder(path: &Path) -> OpenOptions {
    OpenOptions { data_dir: Some(path.to_path_buf()), ..OpenOptions::default() }
}

#[test]
fn a_folder_of_idx_files_under_any_of_their_names() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("letters");
    write_idx(&folder);
    let set = open_at(&folder, &OpenOptions::default()).unwrap();
    assert_eq!((set.name.as_str(), set.train.len(), set.test.len()), ("letters", 3, 2));
    assert_eq!((set.shape(), set.classes[9].as_str()), ([1, 4, 4], "9"));
    assert_eq!(set.split(Split::Test).read(0, &mut [0; 16]).unwrap(), 9);
    assert!(set.notes.is_empty());
    let limited = OpenOptions { limit_train: Some(0), limit_test: Some(1), ..OpenOptions::default() };
    let set = open_at(&folder, &limited).unwrap();
    assert_eq!((set.train.len(), set.test.len(), set.shape()), (0, 1, [1, 4, 4]));
    assert!(set.notes.is_empty());
}

#[test]
fn class_names_follow_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let fashion = root.path().join("My-Fashion");
    write_idx(&fashion);
    let set = open_at(&fashion, &OpenOptions::default()).unwrap();
    assert_eq!(set.classes[9], "Ankle boot");
    write(&fashion, "classes.txt", b"a\nb\nc\nd\n");
    assert!(problem(&fashion).contains("image 0 has label 9, but there are 4 classes"));
    write(&fashion, "classes.txt", b"\n");
    assert!(problem(&fashion).contains("0 class names"));
}

#[test]
fn incomplete_idx_folders() {
    let root = tempfile::tempdir().unwrap();
    write_idx(root.path());
    fs::remove_file(root.path().join("t10k-images.idx3-ubyte")).unwrap();
    let set = open_at(root.path(), &OpenOptions::default()).unwrap();
    assert!(set.test.is_empty() && set.test.shape() == [1, 4, 4]);
    assert!(set.notes[0].contains("no test split"));
    fs::remove_file(root.path().join("train-labels-idx1-ubyte.gz")).unwrap();
    assert!(problem(root.path()).contains("put train-labels-idx1-ubyte beside it"));
    write_idx(root.path());
    write(root.path(), "t10k-images.idx3-ubyte", &image_file(2, 5, 4));
    assert!(problem(root.path()).contains("both must have one size"));
}

#[test]
fn cifar_folders_whole_and_in_part() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    write(path, "data_batch_1.bin", &record(&[1], 0));
    write(path, "data_batch_3.bin", &[record(&[2], 0), record(&[3], 0)].concat());
    write(path, "test_batch_part.bin", &record(&[4], 0));
    let set = open_at(path, &OpenOptions::default()).unwrap();
    assert_eq!((set.train.len(), set.test.len(), set.shape()), (3, 1, [3, 32, 32]));
    assert!(set.notes[0].contains("2 of the 5 training files"));
    write(path, "test_batch.bin", &[record(&[5], 0), record(&[6], 0)].concat());
    let set = open_at(path, &OpenOptions::default()).unwrap();
    assert_eq!(set.test.len(), 2, "the whole file replaces parts");

    let hundred = root.path().join("hundred");
    write(&hundred, "test.bin", &record(&[0, 99], 0));
    let set = open_at(&hundred, &OpenOptions::default()).unwrap();
    assert_eq!((set.classes.len(), set.train.len(), set.test.len()), (100, 0, 1));
    assert!(set.notes[0].contains("no training split"));
}

#[test]
fn names_are_looked_for_in_the_data_folder() {
    let root = tempfile::tempdir().unwrap();
    write_idx(&root.path().join("fashion-mnist"));
    write(root.path(), "cifar-10-batches-bin/data_batch_1.bin", &record(&[1], 0));
    let options = in_folder(root.path());
    for name in ["fashion-mnist", "Fashion_MNIST"] {
        let set = open(name, &options).unwrap();
        assert_eq!((set.name.as_str(), set.train.len()), ("fashion-mnist", 3));
        assert_eq!(set.classes[0], "T-shirt/top");
    }
    assert_eq!(open("cifar-10", &options).unwrap().classes[9], "truck");
    // Fashion-MNIST's folder is not taken for MNIST, though its files have the same names.
    let message = open("mnist", &in_folder(&root.path().join("fashion-mnist")));
    if let Err(error) = message {
        let message = error.to_string();
        assert!(message.starts_with("the data set mnist is not there: looked in "), "{message}");
        assert!(message.contains(root.path().to_str().unwrap()), "{message}");
    }
    // The data folder may be the set's own.
    let own = root.path().join("digits");
    write_idx(&own);
    assert_eq!(open("mnist", &in_folder(&own)).unwrap().train.len(), 3);
}

#[test]
fn svhn_in_whole_and_in_part() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "svhn/train_32x32.mat", &crate::data::svhn::tests::sample(&[1, 10, 9]));
    let set = open("SVHN", &in_folder(root.path())).unwrap();
    assert_eq!((set.name.as_str(), set.train.len(), set.test.len(), set.shape()), ("svhn", 3, 0, [3, 32, 32]));
    assert_eq!((set.classes[0].as_str(), set.train.read(1, &mut [0; 3072]).unwrap()), ("0", 0));
    assert!(set.notes[0].contains("no test split"));
    write(root.path(), "svhn/test_32x32.mat", &crate::data::svhn::tests::sample(&[4]));
    let options = OpenOptions { limit_train: Some(2), ..OpenOptions::default() };
    let set = open_at(&root.path().join("svhn"), &options).unwrap();
    assert_eq!((set.train.len(), set.test.len()), (2, 1));
}

#[test]
fn a_missing_set_says_how_to_get_it() {
    let root = tempfile::tempdir().unwrap();
    if let Err(error) = open("cifar100", &in_folder(root.path())) {
        assert!(error.to_string().contains("nin-wgpu data fetch cifar100"), "{error}");
    }
}

#[test]
fn what_is_no_data_set_is_said() {
    let root = tempfile::tempdir().unwrap();
    assert!(problem(root.path()).contains("no data set here"));
    let missing = problem(&root.path().join("missing"));
    assert!(missing.contains("mnist, fashion-mnist, cifar10, cifar100"), "{missing}");
    write(root.path(), "file", b"");
    assert!(problem(&root.path().join("file")).contains("takes the folder"));
}
