//! A server on loopback whose every answer is written by a test: cut, wrong, redirected, lying.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Path on the server.
    pub path: String,
    /// First byte of the range that was asked for.
    pub from: Option<usize>,
    /// Requests for this path before this one.
    pub earlier: usize,
}

/// The server; it runs until the test binary ends.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request with the bytes that `answer` gives, and closes the connection.
    pub fn start(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let counts = Mutex::new(BTreeMap::<String, usize>::new());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some((path, from)) = read_request(&stream) else { continue };
                let earlier = {
                    let mut counts = counts.lock().unwrap();
                    let count = counts.entry(path.clone()).or_default();
                    *count += 1;
                    *count - 1
                };
                let request = Request { path, from, earlier };
                seen.lock().unwrap().push(request.clone());
                // A client may go away before it has everything.
                let _ = (&stream).write_all(&answer(&request));
            }
        });
        Server { url, requests }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<(String, Option<usize>)> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split_whitespace().nth(1)?.to_owned();
    let mut from = None;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.split('-').next()?.parse().ok();
        }
    }
    Some((path, from))
}

/// An answer with a status, headers of one line each, and a body.
pub fn answer(status: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n").into_bytes();
    headers.iter().for_each(|header| bytes.extend(format!("{header}\r\n").bytes()));
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// What an honest server says: all of `body`, or the range that was asked for.
pub fn honest(request: &Request, body: &[u8]) -> Vec<u8> {
    cut(request, body, body.len())
}

/// As [`honest`], but the connection breaks before byte `end` of the body.
pub fn cut(request: &Request, body: &[u8], end: usize) -> Vec<u8> {
    let from = request.from.unwrap_or(0);
    if from >= body.len() {
        return answer("416 Range Not Satisfiable", &[format!("Content-Range: bytes */{}", body.len())], b"");
    }
    let sent = &body[from..end.max(from)];
    let length = format!("Content-Length: {}", body.len() - from);
    match request.from {
        None => answer("200 OK", &[length], sent),
        Some(_) => {
            let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
            answer("206 Partial Content", &[length, range], sent)
        }
    }
}

/// Nothing there.
pub fn not_found() -> Vec<u8> {
    answer("404 Not Found", &["Content-Length: 0".into()], b"")
}

/// Somewhere else.
pub fn redirect(to: &str) -> Vec<u8> {
    answer("302 Found", &[format!("Location: {to}"), "Content-Length: 0".into()], b"")
}
