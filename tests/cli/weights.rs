//! Weights that cannot be used: each gets one line and the documented exit code.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{embedded_parts, finished_run, mini_fashion, run, safetensors, sample, tensors, word};
use serde_json::{Value, json};
use std::fs;

pub const TESTS: &[Test] = &[
    ("damaged_files_are_6", Nothing, damaged_files_are_6),
    ("files_without_metadata_need_a_model", Nothing, files_without_metadata_need_a_model),
    ("weights_of_another_model_are_6", Device, weights_of_another_model_are_6),
    ("files_without_metadata_work_with_a_model", Device, files_without_metadata_work_with_a_model),
    ("wrapped_names_and_parts_of_metadata_are_read", Device, wrapped_names_and_parts_of_metadata_are_read),
    ("half_precision_is_read", Device, half_precision_is_read),
    ("saved_weights_are_what_pytorch_reads", Device, saved_weights_are_what_pytorch_reads),
];

fn damaged_files_are_6() {
    let (header, data) = embedded_parts();
    let text = header.to_string();
    let whole = safetensors(&text, &data);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        change(&mut header);
        safetensors(&header.to_string(), &data)
    };
    let mut not_a_number = data.clone();
    not_a_number[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut infinite = data.clone();
    infinite[400..404].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let mut long = whole.clone();
    long.extend([0; 16]);
    let mut endless = whole.clone();
    endless[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut past_the_end = whole.clone();
    past_the_end[..8].copy_from_slice(&(whole.len() as u64 * 2).to_le_bytes());
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("short", whole[..5].to_vec()),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("truncated-by-one", whole[..whole.len() - 1].to_vec()),
        ("truncated-header", whole[..200].to_vec()),
        ("trailing", long),
        ("endless-header", endless),
        ("header-past-the-end", past_the_end),
        ("text", b"these are no weights\n".to_vec()),
        ("zip", b"PK\x03\x04pytorch".to_vec()),
        ("picture", fs::read(sample()).unwrap()),
        ("no-json", safetensors("{\"0.0.weight\":", &data)),
        ("list", safetensors("[1, 2]", &data)),
        ("nan", safetensors(&text, &not_a_number)),
        ("infinite", safetensors(&text, &infinite)),
        ("wrong-shape", changed(&|h| h["0.0.weight"]["shape"] = json!([16, 1, 5, 6]))),
        ("vast-shape", changed(&|h| h["0.0.weight"]["shape"] = json!([4_294_967_296u64, 4_294_967_296u64, 5, 5]))),
        ("negative-shape", changed(&|h| h["0.0.weight"]["shape"] = json!([-16, -1, 5, 5]))),
        ("overlapping", changed(&|h| h["0.0.bias"]["data_offsets"] = json!([0, 64]))),
        ("backwards", changed(&|h| h["0.0.bias"]["data_offsets"] = json!([1664, 1600]))),
        ("outside", changed(&|h| h["0.0.bias"]["data_offsets"] = json!([1u64 << 60, (1u64 << 60) + 64]))),
        ("odd-type", changed(&|h| h["0.0.bias"]["dtype"] = json!("F31"))),
        ("integer-type", changed(&|h| h["0.0.bias"]["dtype"] = json!("I32"))),
        ("unknown-model", changed(&|h| h["__metadata__"]["model"] = json!("vgg"))),
        ("bad-preprocess", changed(&|h| h["__metadata__"]["preprocess"] = json!("{\"size\":[0,0]}"))),
        ("bad-classes", changed(&|h| h["__metadata__"]["classes"] = json!("ten"))),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (picture, data_set) = (sample(), mini_fashion());
    let mut paths = vec![word(folder.path().join("missing.safetensors")), word(folder.path())];
    for (name, bytes) in files {
        let path = folder.path().join(format!("{name}.safetensors"));
        fs::write(&path, bytes).unwrap();
        paths.push(word(path));
    }
    for path in &paths {
        let ran = run(&["infer", &picture, "--weights", path]);
        let error = ran.fails(6);
        assert!(error.contains(path.as_str()), "{error}");
        assert_eq!(ran.stdout, "");
    }
    for path in [&paths[0], &paths[4]] {
        run(&["eval", "--data", &data_set, "--weights", path, "--json"]).fails(6);
    }
}

fn files_without_metadata_need_a_model() {
    let (mut header, data) = embedded_parts();
    header.as_object_mut().unwrap().remove("__metadata__");
    let folder = tempfile::tempdir().unwrap();
    let path = word(folder.path().join("plain.safetensors"));
    fs::write(&path, safetensors(&header.to_string(), &data)).unwrap();
    let error = run(&["infer", &sample(), "--weights", &path]).fails(2);
    assert!(error.contains("--model"), "{error}");
}

fn weights_of_another_model_are_6() {
    let folder = tempfile::tempdir().unwrap();
    let (mut header, data) = embedded_parts();
    header["__metadata__"]["model"] = json!("nin-cifar");
    let path = word(folder.path().join("other.safetensors"));
    fs::write(&path, safetensors(&header.to_string(), &data)).unwrap();
    let embedded = word(crate::support::project("assets/nin-small-fashion.safetensors"));
    for line in [
        &["infer", &sample(), "--weights", &path][..],
        &["infer", &sample(), "--weights", &embedded, "--model", "nin"],
        &["train", "--model", "nin", "--data", &mini_fashion(), "--limit-train", "2", "--batch-size", "2", "--initial-weights", &embedded],
        &["train", "--model", "nin-small", "--data", &mini_fashion(), "--initial-weights", &word(folder.path().join("missing"))],
    ] {
        let out = word(folder.path().join("run"));
        let line = if line[0] == "train" { [line, &["--out", &out]].concat() } else { line.to_vec() };
        let ran = run(&line);
        ran.fails(6);
        assert_eq!(ran.stdout, "");
        assert!(!folder.path().join("run").exists(), "a run that never began left a folder");
    }
}

fn files_without_metadata_work_with_a_model() {
    let (mut header, data) = embedded_parts();
    let preprocess: Value = serde_json::from_str(header["__metadata__"]["preprocess"].as_str().unwrap()).unwrap();
    let list = |key: &str| preprocess[key].as_array().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    header.as_object_mut().unwrap().remove("__metadata__");
    let folder = tempfile::tempdir().unwrap();
    let path = word(folder.path().join("plain.safetensors"));
    fs::write(&path, safetensors(&header.to_string(), &data)).unwrap();
    let ran =
        run(&["infer", "--json", &sample(), "--weights", &path, "--model", "nin-small", "--mean", &list("mean"), "--std", &list("std")])
            .done();
    assert!(ran.stderr.contains("assumed nin-small"), "{ran}");
    let embedded = run(&["infer", "--json", &sample()]).done().json();
    for (plain, known) in ran.json()[0]["predictions"].as_array().unwrap().iter().zip(embedded[0]["predictions"].as_array().unwrap()) {
        assert_eq!((&plain["index"], &plain["probability"]), (&known["index"], &known["probability"]));
        assert_eq!(plain["class"], plain["index"].to_string().as_str());
    }
}

/// As `torch.compile` and `DataParallel` name tensors, and with metadata that leaves out the classes.
fn wrapped_names_and_parts_of_metadata_are_read() {
    let (header, data) = embedded_parts();
    let folder = tempfile::tempdir().unwrap();
    let path = word(folder.path().join("w.safetensors"));
    let embedded = run(&["infer", "--json", &sample()]).done().json();
    for (wrapper, keeps_classes) in [("_orig_mod.", true), ("module.", true), ("module._orig_mod.", false), ("", false)] {
        let mut wrapped = serde_json::Map::new();
        for (name, value) in header.as_object().unwrap() {
            let is_tensor = name != "__metadata__";
            wrapped.insert(if is_tensor { format!("{wrapper}{name}") } else { name.clone() }, value.clone());
        }
        if !keeps_classes {
            wrapped["__metadata__"].as_object_mut().unwrap().remove("classes");
        }
        fs::write(&path, safetensors(&Value::Object(wrapped).to_string(), &data)).unwrap();
        let ran = run(&["infer", "--json", &sample(), "--weights", &path]).done();
        assert_eq!(ran.stderr.contains("off the tensors' names"), !wrapper.is_empty(), "{ran}");
        assert_eq!(ran.stderr.contains("does not say its classes; assumed 10 classes called by their numbers"), !keeps_classes, "{ran}");
        for (read, known) in ran.json()[0]["predictions"].as_array().unwrap().iter().zip(embedded[0]["predictions"].as_array().unwrap()) {
            assert_eq!((&read["index"], &read["probability"]), (&known["index"], &known["probability"]));
            assert_eq!(read["class"], if keeps_classes { known["class"].clone() } else { json!(known["index"].to_string()) });
        }
    }
    // Training starts from them as well, and says it.
    let out = word(folder.path().join("run"));
    let line = ["train", "--model", "nin-small", "--data", &mini_fashion(), "--limit-train", "32", "--limit-test", "2", "--epochs", "1"];
    let mut wrapped = header.as_object().unwrap().clone();
    wrapped.remove("__metadata__");
    let wrapped: serde_json::Map<_, _> = wrapped.into_iter().map(|(name, value)| (format!("_orig_mod.{name}"), value)).collect();
    fs::write(&path, safetensors(&Value::Object(wrapped).to_string(), &data)).unwrap();
    let ran = run(&[&line[..], &["--initial-weights", &path, "--out", &out, "--no-report"]].concat()).done();
    assert!(ran.stderr.contains("took '_orig_mod.' off the tensors' names"), "{ran}");
}

fn half_precision_is_read() {
    // The upper half of a single-precision number is the same number as bfloat16, cut off.
    let (mut header, data) = embedded_parts();
    let half: Vec<u8> = data.chunks_exact(4).flat_map(|bytes| [bytes[2], bytes[3]]).collect();
    for (_, entry) in header.as_object_mut().unwrap().iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let offsets: Vec<u64> = entry["data_offsets"].as_array().unwrap().iter().map(|offset| offset.as_u64().unwrap() / 2).collect();
        entry["data_offsets"] = json!(offsets);
        entry["dtype"] = json!("BF16");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = word(folder.path().join("half.safetensors"));
    fs::write(&path, safetensors(&header.to_string(), &half)).unwrap();
    let halves = run(&["infer", "--json", &sample(), "--weights", &path]).done().json();
    let whole = run(&["infer", "--json", &sample()]).done().json();
    assert_eq!(halves[0]["predictions"][0]["class"], whole[0]["predictions"][0]["class"]);
}

fn saved_weights_are_what_pytorch_reads() {
    let path = finished_run().join("last.safetensors");
    let expected: Vec<(String, Vec<usize>)> = [
        ("0.0", 16, 1, 5),
        ("0.2", 16, 16, 1),
        ("0.4", 16, 16, 1),
        ("2.0", 64, 16, 3),
        ("2.2", 64, 64, 1),
        ("2.4", 32, 64, 1),
        ("5.0", 128, 32, 3),
        ("5.2", 128, 128, 1),
        ("5.4", 10, 128, 1),
    ]
    .iter()
    .flat_map(|(path, out, within, side)| {
        [(format!("{path}.weight"), vec![*out, *within, *side, *side]), (format!("{path}.bias"), vec![*out])]
    })
    .collect();
    let found: Vec<(String, Vec<usize>)> = tensors(&path).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    assert_eq!(found, expected);
    // The reader of PyTorch's safetensors package is this crate's.
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensors().iter().all(|(_, view)| view.dtype() == safetensors::Dtype::F32));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let mut names: Vec<&str> = metadata.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["classes", "model", "preprocess", "recipe"]);
    let classes: Vec<String> = serde_json::from_str(&metadata["classes"]).unwrap();
    let preprocess: Value = serde_json::from_str(&metadata["preprocess"]).unwrap();
    assert_eq!((metadata["model"].as_str(), classes.len()), ("nin-small", 10));
    assert_eq!(crate::support::keys(&preprocess), ["size", "channels", "mean", "std", "polarity"]);
    assert_eq!((&preprocess["size"], &preprocess["channels"]), (&json!([28, 28]), &json!(1)));
    assert_eq!(preprocess["polarity"], "light-on-dark");
}
