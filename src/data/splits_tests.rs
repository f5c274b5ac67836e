use super::*;
use std::fs;

/// Files of these names under a new folder; what ends in `/` is a folder.
fn tree(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        let path = root.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
    }
    root
}

/// Training folder and test folder by their names within the root, and the classes.
fn told(names: &[&str]) -> (Option<String>, Option<String>, String) {
    let root = tree(names);
    let found = layout(root.path()).unwrap_or_else(|error| panic!("{names:?}: {error}"));
    let name =
        |split: Option<SplitFolder>| split.map(|split| split.path.strip_prefix(root.path()).unwrap().to_str().unwrap().replace('\\', "/"));
    (name(found.train), name(found.test), found.classes.join(" "))
}

fn refusal(names: &[&str]) -> String {
    let root = tree(names);
    let message = layout(root.path()).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message.replace(root.path().to_str().unwrap(), "ROOT")
}

fn notes(names: &[&str]) -> String {
    let root = tree(names);
    layout(root.path()).unwrap().notes.join("\n").replace(root.path().to_str().unwrap(), "ROOT")
}

/// Two classes in each of these folders.
fn classes_in(folders: &[&str]) -> Vec<String> {
    folders.iter().flat_map(|folder| ["ant/1.png", "bee/1.png"].map(|file| format!("{folder}/{file}"))).collect()
}

#[test]
fn splits_are_known_by_many_names() {
    for (train, test) in [
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("Training", "Testing"),
        ("training", "testing"),
        ("seg_train", "seg_test"),
        ("train2017", "val2017"),
        ("train", "test1"),
        ("training_set", "test_set"),
        ("train-images", "dev-images"),
        ("pets train", "pets eval"),
        ("train", "holdout"),
    ] {
        let files = classes_in(&[train, test]);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        assert_eq!(told(&files), (Some(train.into()), Some(test.into()), "ant bee".into()));
    }
}

#[test]
fn of_several_test_splits_the_best_known_counts_and_the_others_are_named() {
    let files = classes_in(&["train", "test", "val", "extra"]);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    assert_eq!(told(&files).1, Some("val".into()));
    let said = notes(&files);
    assert!(said.contains("val/ is used as the test split, test/ is left aside"), "{said}");
    assert!(said.contains("not used beside train/ and val/: the folders \"extra\""), "{said}");
    let files = classes_in(&["a_train", "b_train", "test"]);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    assert!(refusal(&files).contains("both \"a_train\" and \"b_train\" look like the train split"), "{}", refusal(&files));
}

#[test]
fn a_class_may_be_called_as_a_split() {
    assert_eq!(told(&["bus/1.png", "car/1.png", "train/1.png"]), (Some(String::new()), None, "bus car train".into()));
    assert_eq!(told(&["bus/1.png", "train/1.png", "train/more/2.png"]).2, "bus train");
    assert_eq!(told(&["dress/1.png", "test/1.png", "validation/2.png"]).2, "dress test validation");
    let error = refusal(&["train/1.png", "test/1.png"]);
    assert!(error.starts_with("ROOT/test: holds no class folders"), "{error}");
    // An unlabelled test split is none.
    let files = ["train/ant/1.png", "train/bee/1.png", "test/1.png", "sample.png"];
    assert_eq!(told(&files), (Some("train".into()), None, "ant bee".into()));
    let said = notes(&files);
    assert!(said.contains("\"test\"") && said.contains("1 picture beside the folders is not used, such as \"sample.png\""), "{said}");
    let files = ["train/ant/1.png", "train/bee/1.png", "val/ant/1.png", "val/bee/1.png", "test/1.png", "train/2.png", "train/3.png"];
    let said = notes(&files);
    assert!(said.contains("test/ holds no class folders and is not used"), "{said}");
    assert!(said.contains("ROOT/train: 2 pictures beside the folders are not used, such as \"2.png\""), "{said}");
}

#[test]
fn archives_unpacked_into_a_folder_of_their_name() {
    let files = classes_in(&["seg_train/seg_train", "seg_test/seg_test", "seg_pred/seg_pred"]);
    let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
    files.retain(|file| !file.starts_with("seg_pred"));
    assert_eq!(told(&files), (Some("seg_train/seg_train".into()), Some("seg_test/seg_test".into()), "ant bee".into()));
    // A split of one class stays what it is.
    assert_eq!(told(&["test/ant/old/1.png", "test/ant/new/2.png"]), (None, Some("test".into()), "ant".into()));
}

#[test]
fn folders_that_all_hold_the_same_folders_are_refused() {
    let files = classes_in(&["fold1", "fold2", "fold3"]);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let error = refusal(&files);
    for part in
        ["\"fold1\", \"fold2\", \"fold3\" all hold the same folders (\"ant\", \"bee\")", "train and val or test", "--data ROOT/fold1"]
    {
        assert!(error.contains(part), "{error}");
    }
    // One folder of the same name in each class is how some sets keep their pictures.
    assert_eq!(told(&["n1/images/1.png", "n2/images/1.png"]).2, "n1 n2");
    assert_eq!(told(&["a/x/1.png", "a/y/1.png", "b/x/1.png", "b/y/1.png", "b/1.png"]).2, "a b");
}

#[test]
fn junk_is_no_class_and_is_not_searched() {
    let files = [
        "ant/1.png",
        "bee/1.png",
        ".git/1.png",
        ".ipynb_checkpoints/1.png",
        "__MACOSX/ant/2.png",
        "@eaDir/ant/2.png",
        "$RECYCLE.BIN/2.png",
        "System Volume Information/2.png",
        "lost+found/2.png",
        "__pycache__/2.png",
        "#recycle/2.png",
        "labels/1.xml",
        "void/",
        "Thumbs.db",
    ];
    assert_eq!(told(&files).2, "ant bee");
    let said = notes(&files);
    assert!(said.contains("labels: holds no pictures, so it is no class") && said.contains("void: holds no pictures"), "{said}");
    assert_eq!(told(&["ant/.ipynb_checkpoints/1.png", "bee/__MACOSX/1.png", "cow/1.png"]).2, "cow");
    // What lies above the data set's own folder does not matter.
    let root = tree(&[".hidden/@eaDir/ant/1.png", ".hidden/@eaDir/bee/1.png"]);
    assert_eq!(layout(&root.path().join(".hidden/@eaDir")).unwrap().classes, ["ant", "bee"]);
}

// Other systems do not have all of these names.
#[cfg(target_os = "linux")]
#[test]
fn names_of_classes_are_checked_and_compared() {
    assert!(refusal(&["tab\there/1.png", "bee/1.png"]).contains(r#"has characters that cannot be printed ("tab\there"); rename it"#));
    assert!(refusal(&["\u{3000}/1.png", "bee/1.png"]).contains("nothing to be seen"));
    let (composed, apart) = ("caf\u{e9}", "cafe\u{301}");
    let both = |folder: &str, name: &str| format!("{folder}/{name}/1.png");
    let files = [both("train", composed), both("val", apart), both("train", "tea"), both("val", "tea")];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    assert_eq!(told(&files).2, "caf\u{e9} tea");
    let error = refusal(&[&both("x", "1"), &format!("{composed}/1.png"), &format!("{apart}/1.png")]);
    assert!(error.contains("two forms of Unicode"), "{error}");
    let error = refusal(&["train/Cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/dog/1.png"]);
    assert!(error.contains("ROOT/val: has no class folder \"Cat\", but \"cat\""), "{error}");
    assert!(notes(&["cat/1.png", "Cat/1.png"]).contains("the classes \"Cat\" and \"cat\" look alike"));
    assert!(notes(&["cat/1.png", "cat /1.png"]).contains("look alike"));
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_found_unless_hidden() {
    use std::os::unix::fs::symlink;
    let root = tree(&["ant/1.png", "bee/1.png"]);
    for name in ["gone", ".#lock", "zzz.png"] {
        symlink("/nowhere/at/all", root.path().join(name)).unwrap();
    }
    let found = layout(root.path()).unwrap();
    let names: Vec<_> = found.dangling.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!((names, found.classes.join(" ")), (vec!["gone", "zzz.png"], "ant bee".into()));
}
