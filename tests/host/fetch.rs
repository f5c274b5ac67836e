//! Downloads from servers that cut connections, send wrong bytes, redirect and lie.

use crate::loopback::{Request, Server, answer, cut, honest, not_found, redirect};
use flate2::Compression;
use flate2::write::GzEncoder;
use nin_wgpu::data::catalog::{Content, Holds, KnownSet, Member, RemoteFile};
use nin_wgpu::data::fetch::{FetchError, FetchEvent, FetchOptions, fetch};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Bytes without structure, and without a repetition that would hide a wrong offset.
fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mixed = |n: u32| {
        let n = (n ^ (seed << 24)).wrapping_mul(2_654_435_761);
        (n ^ (n >> 15)).wrapping_mul(2_246_822_519) >> 24
    };
    (0..count as u32).map(|n| mixed(n) as u8).collect()
}

fn hash(bytes: &[u8]) -> &'static str {
    let text: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    text.leak()
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A set of one file that is taken as it is.
fn plain_set(body: &[u8]) -> KnownSet {
    set(RemoteFile { name: "a.bin", bytes: body.len() as u64, sha256: hash(body), mirrors: &[], holds: Holds::Itself })
}

fn set(file: RemoteFile) -> KnownSet {
    KnownSet { name: "tiny", about: "", remote: Box::leak(Box::new([file])) }
}

fn quick(mirrors: &[&Server]) -> FetchOptions {
    FetchOptions {
        mirrors: mirrors.iter().map(|server| server.url.clone()).collect(),
        attempts: 3,
        pause: Duration::from_millis(1),
        patience: Duration::from_secs(5),
    }
}

fn run(set: &KnownSet, folder: &Path, mirrors: &[&Server]) -> (Result<Vec<u8>, FetchError>, Vec<FetchEvent>) {
    let mut events = Vec::new();
    let result = fetch(set, folder, &quick(mirrors), &mut |event| events.push(event));
    (result.map(|path| fs::read(path.join(set.remote[0].name)).unwrap()), events)
}

/// Expects that nothing was put in place.
fn refused(set: &KnownSet, mirrors: &[&Server]) -> FetchError {
    let folder = tempfile::tempdir().unwrap();
    let (result, _) = run(set, folder.path(), mirrors);
    assert!(!folder.path().join("tiny").exists(), "something was put in place");
    let error = result.expect_err("refused");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

fn is_checksum(error: &FetchError) -> bool {
    matches!(error, FetchError::Checksum { .. })
}

fn is_unreachable(error: &FetchError) -> bool {
    matches!(error, FetchError::Unreachable { .. })
}

#[test]
fn cut_connections_are_resumed() {
    let body = noise(300_000, 1);
    let set = plain_set(&body);
    // Each connection brings 70,000 bytes and breaks; the third has an error instead.
    let server = Server::start({
        let body = body.clone();
        move |request| match request.earlier {
            2 => answer("503 Service Unavailable", &["Content-Length: 0".into()], b""),
            _ => cut(request, &body, (request.from.unwrap_or(0) + 70_000).min(body.len())),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (result, events) = run(&set, folder.path(), &[&server]);
    assert!(result.unwrap() == body);
    let from: Vec<Option<usize>> = server.requests().iter().map(|request| request.from).collect();
    assert_eq!(from, [None, Some(70_000), Some(140_000), Some(140_000), Some(210_000), Some(280_000)]);
    assert!(events.iter().any(|event| matches!(event, FetchEvent::Trouble(text) if text.contains("broke") || text.contains("ended"))));
    assert!(!folder.path().join(".tiny.partial").exists(), "the staging folder is left");
}

#[test]
fn an_interrupted_download_goes_on_in_the_next_run() {
    let body = noise(100_000, 2);
    let set = plain_set(&body);
    let folder = tempfile::tempdir().unwrap();
    let broken = Server::start({
        let body = body.clone();
        move |request| cut(request, &body, 60_000)
    });
    let (result, _) = run(&set, folder.path(), &[&broken]);
    assert!(is_unreachable(&result.unwrap_err()));
    assert!(!folder.path().join("tiny").exists());
    let whole = Server::start({
        let body = body.clone();
        move |request| honest(request, &body)
    });
    let (result, _) = run(&set, folder.path(), &[&whole]);
    assert!(result.unwrap() == body);
    assert_eq!(whole.requests(), [Request { path: "/tiny/a.bin".into(), from: Some(60_000), earlier: 0 }]);
}

#[test]
fn servers_without_ranges_start_again() {
    let body = noise(100_000, 3);
    let set = plain_set(&body);
    let server = Server::start({
        let body = body.clone();
        move |request| {
            let request = Request { from: None, ..request.clone() };
            cut(&request, &body, if request.earlier == 0 { 40_000 } else { body.len() })
        }
    });
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&set, folder.path(), &[&server]).0.unwrap() == body);
    assert_eq!(server.requests().len(), 2);
    // One that sends another range than was asked for.
    let shifted = Server::start({
        let body = body.clone();
        move |request| match request.from {
            None if request.earlier == 0 => cut(request, &body, 40_000),
            None => honest(request, &body),
            Some(from) => honest(&Request { from: Some(from - 1), ..request.clone() }, &body),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&set, folder.path(), &[&shifted]).0.unwrap() == body);
}

#[test]
fn wrong_bytes_are_refused_and_the_next_mirror_has_its_turn() {
    let body = noise(50_000, 4);
    let set = plain_set(&body);
    let mut wrong = body.clone();
    wrong[33_333] ^= 1;
    let liar = Server::start(move |request| honest(request, &wrong));
    let error = refused(&set, &[&liar]);
    assert!(is_checksum(&error) && error.to_string().contains("SHA-256"), "{error}");
    assert_eq!(liar.requests().len(), 1, "wrong bytes are not asked for twice");
    let good = Server::start({
        let body = body.clone();
        move |request| honest(request, &body)
    });
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&set, folder.path(), &[&liar, &good]).0.unwrap() == body);
}

#[test]
fn wrong_bytes_before_the_cut_do_not_poison_the_rest() {
    let body = noise(50_000, 5);
    let set = plain_set(&body);
    let mut wrong = body.clone();
    wrong[0] ^= 1;
    // The first mirror sends a wrong beginning and breaks for good; the second is honest.
    let first = Server::start(move |request| if request.earlier == 0 { cut(request, &wrong, 20_000) } else { not_found() });
    let second = Server::start({
        let body = body.clone();
        move |request| honest(request, &body)
    });
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&set, folder.path(), &[&first, &second]).0.unwrap() == body);
    let from: Vec<Option<usize>> = second.requests().iter().map(|request| request.from).collect();
    assert_eq!(from, [Some(20_000), None]);
}

#[test]
fn lies_about_length_are_found() {
    let body = noise(50_000, 6);
    let set = plain_set(&body);
    let lying = |length: usize, sent: Vec<u8>| Server::start(move |_| answer("200 OK", &[format!("Content-Length: {length}")], &sent));
    for (length, sent) in [(40_000, body.clone()), (60_000, body.clone()), (usize::MAX, body.clone())] {
        let error = refused(&set, &[&lying(length, sent)]);
        assert!(is_unreachable(&error) && error.to_string().contains("instead of 50000"), "{error}");
    }
    // Announced as it should be, but never delivered.
    let short = refused(&set, &[&lying(50_000, body[..30_000].to_vec())]);
    assert!(is_unreachable(&short), "{short}");
    // No announcement at all: more than there may be is refused, less is not taken for the end.
    let endless = Server::start(|_| answer("200 OK", &[], &vec![7; 1 << 20]));
    assert!(refused(&set, &[&endless]).to_string().contains("sends more than 50000 bytes"));
    let silent = Server::start({
        let body = body.clone();
        move |_| answer("200 OK", &[], &body)
    });
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&set, folder.path(), &[&silent]).0.unwrap() == body);
}

#[test]
fn redirects_are_followed_but_not_forever() {
    let body = noise(5_000, 7);
    let set = plain_set(&body);
    let server = Server::start({
        let body = body.clone();
        move |request| match request.path.as_str() {
            "/tiny/a.bin" => redirect("/elsewhere/1"),
            "/elsewhere/1" => redirect("/elsewhere/2"),
            _ => honest(request, &body),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&set, folder.path(), &[&server]).0.unwrap() == body);
    let circle = Server::start(|_| redirect("/tiny/a.bin"));
    let error = refused(&set, &[&circle]);
    assert!(is_unreachable(&error) && error.to_string().contains("redirects"), "{error}");
    assert!(circle.requests().len() < 10, "{}", circle.requests().len());
}

#[test]
fn missing_files_and_silent_hosts_lead_to_the_next_mirror() {
    let body = noise(5_000, 8);
    let set = plain_set(&body);
    let missing = Server::start(|_| not_found());
    let good = Server::start({
        let body = body.clone();
        move |request| honest(request, &body)
    });
    let folder = tempfile::tempdir().unwrap();
    let (result, events) = run(&set, folder.path(), &[&missing, &good]);
    assert!(result.unwrap() == body);
    assert!(events.iter().any(|event| matches!(event, FetchEvent::Trouble(text) if text.contains("status 404"))), "{events:?}");
    assert_eq!(missing.requests().len(), 1);
    let error = refused(&set, &[&missing]);
    assert!(is_unreachable(&error) && error.to_string().contains("status 404"), "{error}");
    // Garbage instead of HTTP, and a connection that closes at once.
    for bytes in [b"not http\r\n\r\n".to_vec(), Vec::new()] {
        assert!(is_unreachable(&refused(&set, &[&Server::start(move |_| bytes.clone())])));
    }
}

#[test]
fn another_packing_of_the_same_content_is_as_good() {
    let content = noise(40_000, 9).into_iter().map(|byte| byte & 3).collect::<Vec<u8>>();
    let (pinned, other) = (gzip(&content, 9), gzip(&content, 1));
    assert_ne!(pinned, other);
    let set = set(RemoteFile {
        name: "a.gz",
        bytes: pinned.len() as u64,
        sha256: hash(&pinned),
        mirrors: &[],
        holds: Holds::Gzip(Content { bytes: content.len() as u64, sha256: hash(&content) }),
    });
    for body in [pinned, other] {
        let served = body.clone();
        let server = Server::start(move |request| honest(request, &served));
        let folder = tempfile::tempdir().unwrap();
        assert!(run(&set, folder.path(), &[&server]).0.unwrap() == body);
    }
    // Other content, half of a file, and a file that unpacks to far more.
    let bomb = gzip(&vec![0; 50_000_000], 9);
    let half = gzip(&content, 9)[..5_000].to_vec();
    for body in [gzip(&noise(40_000, 10), 1), half, bomb] {
        let error = refused(&set, &[&Server::start(move |request| honest(request, &body))]);
        assert!(is_checksum(&error) || error.to_string().contains("announces"), "{error}");
    }
}

/// A tar archive in gzip of one file, or of a link.
fn archive(path: &str, content: &[u8], is_link: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    header.set_entry_type(if is_link { tar::EntryType::Symlink } else { tar::EntryType::Regular });
    header.set_cksum();
    builder.append(&header, content).unwrap();
    gzip(&builder.into_inner().unwrap(), 6)
}

#[test]
fn archives_are_unpacked_and_suspect_ones_refused() {
    const MEMBERS: &[Member] = &[Member { path: "set/a.bin", bytes: 4 }];
    let of = |body: &[u8]| {
        set(RemoteFile { name: "set.tar.gz", bytes: body.len() as u64, sha256: hash(body), mirrors: &[], holds: Holds::Archive(MEMBERS) })
    };
    let serve = |body: Vec<u8>| Server::start(move |request| honest(request, &body));
    let good = archive("set/a.bin", b"abcd", false);
    let folder = tempfile::tempdir().unwrap();
    // A folder that is there already keeps what is not of the set.
    fs::create_dir(folder.path().join("tiny")).unwrap();
    fs::write(folder.path().join("tiny/notes.txt"), "mine").unwrap();
    fs::write(folder.path().join("tiny/a.bin"), "old").unwrap();
    let path = fetch(&of(&good), folder.path(), &quick(&[&serve(good.clone())]), &mut |_| {}).unwrap();
    assert_eq!(fs::read(path.join("a.bin")).unwrap(), b"abcd");
    assert_eq!(fs::read(path.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    for body in [archive("set/a.bin", b"", true), archive("../a.bin", b"abcd", false), archive("set/b.bin", b"abcd", false)] {
        let error = refused(&of(&body), &[&serve(body.clone())]);
        assert!(matches!(error, FetchError::Archive { .. }), "{error}");
    }
}

#[test]
fn two_processes_do_not_mix_their_bytes() {
    let body = noise(1_000, 11);
    let set = plain_set(&body);
    let folder = tempfile::tempdir().unwrap();
    let staging = folder.path().join(".tiny.partial");
    fs::create_dir(&staging).unwrap();
    let held = fs::File::create(staging.join("lock")).unwrap();
    held.lock().unwrap();
    let server = Server::start(move |request| honest(request, &body));
    let (result, _) = run(&set, folder.path(), &[&server]);
    assert!(matches!(result.unwrap_err(), FetchError::Busy { .. }));
    drop(held);
    assert!(run(&set, folder.path(), &[&server]).0.is_ok());
}
