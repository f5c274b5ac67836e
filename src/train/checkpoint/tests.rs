use std::collections::BTreeMap;

use super::*;
use crate::errors::ErrorKind;

fn tensor(name: &str, start: f32) -> NamedTensor {
    NamedTensor { name: name.into(), shape: vec![2, 3], data: (0..6).map(|i| start + i as f32 * 0.1).collect() }
}

fn example(step: u64) -> Checkpoint {
    let start = step as f32;
    Checkpoint {
        step,
        epoch: 2,
        step_in_epoch: 7,
        parameters: vec![tensor("0.0.weight", start), tensor("0.0.bias", -start)],
        optimizer: vec![
            ("first".into(), vec![tensor("0.0.weight", 0.5), tensor("0.0.bias", 0.25)]),
            ("second".into(), vec![tensor("0.0.weight", 1e-30)]),
        ],
        loss_scale: Some(LossScale { scale: 4096.0, good_steps: 9, skipped_steps: 2, bias_corrections: [0.1, 1e-3] }),
        best_accuracy: Some(0.1 + 0.2),
        best_loss: Some(0.3 - 0.1),
        progress: Progress { best_loss: Some(0.7 - 0.1), bad_epochs: 2, reductions: 1, epochs_since_best: 3, setbacks: 2 },
        sums: RunningSums {
            epoch_loss: 0.1 + 0.7,
            epoch_correct: 99,
            epoch_images: 448,
            epoch_seconds: 1.0 / 3.0,
            line_loss: 5e-324,
            line_steps: 3,
        },
        seed: u64::MAX,
        config_hash: "c0ffee".into(),
        data_fingerprint: "da7a".into(),
        whitening: Some("3a5e".into()),
    }
}

/// Names and contents of the files in a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn put(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

#[test]
fn what_is_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    example(40).save(&state).unwrap();
    assert_eq!(Checkpoint::load(&state).unwrap(), example(40));

    let mut bare = example(41);
    bare.optimizer.clear();
    (bare.best_accuracy, bare.best_loss, bare.progress.setbacks) = (None, None, 0);
    bare.save(&state).unwrap();
    assert_eq!(Checkpoint::load(&state).unwrap(), bare);
    let names: Vec<String> = files(&state).into_keys().collect();
    assert_eq!(names, ["manifest.json", "step-41.safetensors"]);
}

#[test]
fn the_same_checkpoint_has_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    example(3).save(a.path()).unwrap();
    example(3).save(b.path()).unwrap();
    assert_eq!(files(a.path()), files(b.path()));
}

#[test]
fn leftovers_of_a_killed_process_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    for name in [".step-1.safetensors.partial", "step-1.safetensors", "kept.txt"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    example(2).save(folder.path()).unwrap();
    let names: Vec<String> = files(folder.path()).into_keys().collect();
    assert_eq!(names, ["kept.txt", "manifest.json", "step-2.safetensors"]);
}

/// Every state of the folder that stopping between two of the operations of `save` can leave.
#[test]
fn stopping_at_any_moment_leaves_a_whole_checkpoint() {
    // The next checkpoint is of a later step, or of the same step with other content.
    let mut same_step = example(10);
    same_step.parameters[0].data[0] = 77.0;
    for next in [example(20), same_step] {
        let folder = tempfile::tempdir().unwrap();
        example(10).save(folder.path()).unwrap();
        let before = files(folder.path());
        next.save(folder.path()).unwrap();
        let after = files(folder.path());
        let (name, tensors) = after.iter().find(|(name, _)| name.starts_with("step-")).unwrap();
        assert!(!before.contains_key(name));

        // Half a temporary file, then the tensors in place, then half a manifest: still the old.
        let mut moment = before.clone();
        moment.insert(format!(".{name}.partial"), tensors[..tensors.len() / 2].to_vec());
        put(folder.path(), &moment);
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), example(10));
        moment.insert(name.clone(), tensors.clone());
        put(folder.path(), &moment);
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), example(10));
        moment.insert(".manifest.json.partial".into(), after["manifest.json"][..50].to_vec());
        put(folder.path(), &moment);
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), example(10));
        // The manifest in place, the old tensors not removed yet: the new.
        moment.insert("manifest.json".into(), after["manifest.json"].clone());
        put(folder.path(), &moment);
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), next);
        // The next save cleans up.
        example(30).save(folder.path()).unwrap();
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), example(30));
        assert!(files(folder.path()).keys().all(|name| !name.starts_with(".step")));
    }
}

/// Loads what is in the folder: it must be `whole`, or be refused in one line that names a file of the folder.
fn refused_or(whole: &Checkpoint, folder: &Path) {
    let expected: Vec<_> = example(10).parameters.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    let loaded = Checkpoint::load(folder).and_then(|checkpoint| {
        checkpoint.require_tensors(folder, &expected, &["first", "second"])?;
        Ok(checkpoint)
    });
    match loaded {
        Ok(checkpoint) => assert_eq!(checkpoint, *whole),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
            let message = error.to_string();
            assert!(message.contains(folder.to_str().unwrap()) && !message.contains('\n'), "{message}");
        }
    }
}

/// A checkpoint whose optimizer has the tensors that its model asks for.
fn whole_example(step: u64) -> Checkpoint {
    let mut whole = example(step);
    whole.optimizer[1].1.push(tensor("0.0.bias", 2.5));
    whole
}

/// Truncations, flipped bits and bytes, additions, deletions and exchanged files: a clear refusal, or the checkpoint whole.
#[test]
fn damage_is_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let whole = whole_example(10);
    let of = |checkpoint: &Checkpoint| {
        checkpoint.save(folder.path()).unwrap();
        files(folder.path())
    };
    let others = [of(&whole_example(20)), of(&Checkpoint { epoch: 7, ..whole_example(10) })];
    let good = of(&whole);
    let mut cases = 0;
    let mut check = |damaged: &BTreeMap<String, Vec<u8>>| {
        put(folder.path(), damaged);
        refused_or(&whole, folder.path());
        cases += 1;
    };
    for (name, bytes) in &good {
        let mut with = |changed: Vec<u8>| check(&BTreeMap::from_iter(good.clone().into_iter().chain([(name.clone(), changed)])));
        for length in (0..bytes.len()).step_by(3) {
            with(bytes[..length].to_vec());
        }
        for byte in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[byte] ^= 1 << (byte % 8);
            with(flipped);
        }
        with(vec![0; bytes.len()]);
        with(bytes.repeat(2));
        with([&bytes[..], b" "].concat());
        for other in good.values().chain(others.iter().flat_map(BTreeMap::values)) {
            with(other.clone());
        }
        let mut without = good.clone();
        without.remove(name);
        check(&without);
        // A folder in its place.
        put(folder.path(), &without);
        fs::create_dir(folder.path().join(name)).unwrap();
        let error = Checkpoint::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains(name.as_str()), "{error}");
        fs::remove_dir(folder.path().join(name)).unwrap();
    }
    check(&BTreeMap::new());
    assert!(cases > 500, "{cases}");
    put(folder.path(), &good);
    assert_eq!(Checkpoint::load(folder.path()).unwrap(), whole);
}

/// Headers that announce what is not there, under a manifest that vouches for them.
#[test]
fn headers_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = whole_example(10);
    whole.save(folder.path()).unwrap();
    let good = files(folder.path());
    let (name, bytes) = good.iter().find(|(name, _)| name.starts_with("step-")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = (std::str::from_utf8(&bytes[8..8 + length]).unwrap(), &bytes[8 + length..]);
    let vouch = |tensors: Vec<u8>, change: &dyn Fn(&mut Manifest)| {
        let mut manifest = Sealed::read(folder.path()).unwrap();
        (manifest.tensors.bytes, manifest.tensors.sha256) = (tensors.len() as u64, hex(&Sha256::digest(&tensors)));
        change(&mut manifest);
        let sealed = serde_json::to_vec(&Sealed::new(manifest).unwrap()).unwrap();
        put(folder.path(), &BTreeMap::from([(name.clone(), tensors), ("manifest.json".into(), sealed)]));
        refused_or(&whole, folder.path());
        put(folder.path(), &good);
    };
    let with_header = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
    for (from, to) in [
        ("[2,3]", "[3,2]"),
        ("[2,3]", "[2,4]"),
        ("[2,3]", "[6]"),
        ("[2,3]", "[18446744073709551615,2]"),
        ("[2,3]", "[]"),
        ("F32", "F64"),
        ("F32", "F16"),
        ("F32", "Q4"),
        ("[0,24]", "[0,48]"),
        ("[0,24]", "[24,0]"),
        ("[0,24]", "[0,99999999]"),
        ("[0,24]", "[8,32]"),
        ("parameter/0.0.weight", "parameter/0.0.other"),
        ("parameter/0.0.weight", "weight"),
        ("parameter/0.0.weight", "optimizer/third/0.0.weight"),
        ("optimizer/first", "optimizer/third"),
        ("optimizer/first/0.0.bias", "optimizer/second/0.0.bias"),
        ("{", "["),
    ] {
        let lying = header.replacen(from, to, 1);
        assert_ne!(lying, header, "{from}");
        vouch(with_header(&lying), &|_| {});
    }
    for announced in [0, 7, length as u64 - 1, length as u64 + 1, bytes.len() as u64, u64::MAX, 1 << 40] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&announced.to_le_bytes());
        vouch(lying, &|_| {});
    }
    vouch(bytes[..bytes.len() - 4].to_vec(), &|_| {});
    vouch(Vec::new(), &|_| {});
    vouch(bytes.clone(), &|manifest| manifest.format += 1);
    for elsewhere in ["../state/step-10.safetensors", "/etc/passwd", "step-10/../../x", "", "step-11.safetensors"] {
        vouch(bytes.clone(), &|manifest| manifest.tensors.file = elsewhere.into());
    }
}

#[test]
fn diverged_weights_never_replace_a_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    example(10).save(folder.path()).unwrap();
    let mut diverged = example(20);
    diverged.optimizer[1].1[0].data[4] = f32::NAN;
    let error = diverged.save(folder.path()).unwrap_err();
    let words = "'optimizer/second/0.0.weight' cannot be saved: it holds NaN at element 4";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(Checkpoint::load(folder.path()).unwrap(), example(10));
}

#[test]
fn another_run_is_refused() {
    let checkpoint = example(1);
    let state = Path::new("run/state");
    checkpoint.require_same_run(state, "c0ffee", "da7a").unwrap();
    let error = checkpoint.require_same_run(state, "tea", "da7a").unwrap_err();
    assert!(error.to_string().contains("another configuration"), "{error}");
    let error = checkpoint.require_same_run(state, "c0ffee", "other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData);
    assert!(error.to_string().contains("another data set"), "{error}");

    // Checkpoints of earlier versions do not know what is in pictures' files.
    checkpoint.require_same_run(state, "c0ffee", "da7a-f00d").unwrap();
    let checkpoint = Checkpoint { data_fingerprint: "da7a-f00d".into(), ..checkpoint };
    checkpoint.require_same_run(state, "c0ffee", "da7a-f00d").unwrap();
    let error = checkpoint.require_same_run(state, "c0ffee", "da7a-beef").unwrap_err();
    assert!(error.to_string().contains("another content of its pictures"), "{error}");
}
