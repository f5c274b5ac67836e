//! One file over HTTP: resumed where a part is there, retried where a connection breaks.

use super::super::catalog::{Holds, RemoteFile};
use super::{FetchError, FetchEvent, FetchOptions, length};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::Uri;
use ureq::http::header::{CONTENT_RANGE, RANGE};

/// How long a server may take to be reached.
const CONNECT: Duration = Duration::from_secs(15);
/// Most redirections of one request.
const REDIRECTS: u32 = 5;
/// An attempt that brought as many bytes is none of those that brought nothing.
const PROGRESS: u64 = 64 << 10;
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How rustls begins to say that a certificate is not accepted.
const UNTRUSTED: &str = "invalid peer certificate";
/// Bytes between two events.
const EVENT_BYTES: u64 = 256 << 10;

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// As many bytes as announced are there; whether they are the right ones is to be seen.
    Whole,
    /// This address does not deliver, and why.
    Failed(String),
}

/// How one request ended.
enum Attempt {
    Whole,
    /// Worth another attempt.
    Cut(String),
    /// This address will not get better.
    Refused(String),
}

/// The HTTP client.
pub(super) struct Client {
    agent: Agent,
}

impl Client {
    /// A client that gives a connection up when it brings nothing for `patience`. Proxies are taken from the environment.
    pub(super) fn new(patience: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(REDIRECTS)
            .timeout_connect(Some(CONNECT.min(patience)))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .user_agent(concat!("nin-wgpu/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        Client { agent: config.into() }
    }

    /// Downloads `url` to `part`, going on behind what `part` holds already. Fails only where the disk does.
    pub(super) fn transfer(
        &self,
        url: &str,
        file: &RemoteFile,
        part: &Path,
        options: &FetchOptions,
        observer: &mut dyn FnMut(FetchEvent),
    ) -> Result<Transfer, FetchError> {
        let mut vain = 0;
        let mut most = length(part);
        loop {
            let reason = match self.attempt(url, file, part, observer)? {
                Attempt::Whole => return Ok(Transfer::Whole),
                Attempt::Refused(reason) => return Ok(Transfer::Failed(reason)),
                Attempt::Cut(reason) => reason,
            };
            let present = length(part);
            vain = if present >= most + PROGRESS { 0 } else { vain + 1 };
            most = most.max(present);
            if vain >= options.attempts.max(1) {
                return Ok(Transfer::Failed(reason));
            }
            observer(FetchEvent::Trouble(format!("{url}: {reason}; trying again")));
            thread::sleep(options.pause.saturating_mul(1 << vain.saturating_sub(1).min(10)).min(LONGEST_PAUSE));
        }
    }

    /// One request.
    fn attempt(&self, url: &str, file: &RemoteFile, part: &Path, observer: &mut dyn FnMut(FetchEvent)) -> Result<Attempt, FetchError> {
        let mut present = length(part);
        if present > 0 && (present >= most_bytes(file) || present == file.bytes) {
            // Either it is whole, or verification throws it away.
            return Ok(Attempt::Whole);
        }
        let mut request = self.agent.get(url);
        if is_loopback(url) {
            request = request.config().proxy(None).build();
        }
        if present > 0 {
            request = request.header(RANGE, format!("bytes={present}-"));
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(explain(&error)),
        };
        let status = response.status().as_u16();
        match status {
            200 => present = 0,
            206 => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                if range.and_then(first_byte) != Some(present) {
                    clear(part)?;
                    return Ok(Attempt::Cut(format!("sent another range than was asked for ({})", range.unwrap_or("none named"))));
                }
            }
            416 => {
                clear(part)?;
                return Ok(Attempt::Cut("has nothing behind what was loaded before".into()));
            }
            408 | 425 | 429 | 500..=599 => return Ok(Attempt::Cut(format!("answered with status {status}"))),
            _ => return Ok(Attempt::Refused(format!("answered with status {status}"))),
        }
        let announced = response.body().content_length().map(|length| length.saturating_add(present));
        if let Some(announced) = announced
            && !may_have(file, announced)
        {
            return Ok(Attempt::Refused(format!("announces {announced} bytes instead of {}", file.bytes)));
        }
        let total = announced.unwrap_or(file.bytes);
        observer(FetchEvent::File { name: file.name.to_owned(), url: url.to_owned(), present, total });
        receive(&mut response.into_body().into_reader(), file, part, present, announced, observer)
    }
}

/// Writes the body behind the first `present` bytes of `part`.
fn receive(
    body: &mut dyn Read,
    file: &RemoteFile,
    part: &Path,
    mut present: u64,
    announced: Option<u64>,
    observer: &mut dyn FnMut(FetchEvent),
) -> Result<Attempt, FetchError> {
    let write_error = || FetchError::io(part, "write the file");
    let mut output = OpenOptions::new().create(true).append(true).open(part).map_err(write_error())?;
    output.set_len(present).map_err(write_error())?;
    let most = announced.unwrap_or_else(|| most_bytes(file));
    let mut buffer = vec![0; 1 << 16];
    let mut told = (present, Instant::now());
    loop {
        let count = match body.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Attempt::Cut(format!("the connection broke after {present} bytes ({error})"))),
        };
        if count == 0 {
            break;
        }
        if present + count as u64 > most {
            clear(part)?;
            return Ok(Attempt::Refused(format!("sends more than {most} bytes")));
        }
        output.write_all(&buffer[..count]).map_err(write_error())?;
        present += count as u64;
        if present - told.0 >= EVENT_BYTES || told.1.elapsed() >= Duration::from_secs(1) {
            told = (present, Instant::now());
            observer(FetchEvent::Bytes(present));
        }
    }
    observer(FetchEvent::Bytes(present));
    output.sync_all().map_err(write_error())?;
    // Without an announcement only the pinned size tells an end from a cut.
    let wanted = announced.unwrap_or(if matches!(file.holds, Holds::Gzip(_)) { 0 } else { file.bytes });
    if present < wanted {
        return Ok(Attempt::Cut(format!("the connection ended after {present} of {wanted} bytes")));
    }
    Ok(Attempt::Whole)
}

/// What a request without an answer means.
fn explain(error: &ureq::Error) -> Attempt {
    match error {
        ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => {
            Attempt::Refused(format!("redirects in a circle, or more than {REDIRECTS} times"))
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            Attempt::Refused(format!("is no address ({error})"))
        }
        ureq::Error::HostNotFound => Attempt::Refused("the host's name cannot be looked up; is there a connection?".into()),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => Attempt::Refused("the connection was refused".into()),
        // The standard library's error for a name that cannot be looked up has no kind of its own.
        ureq::Error::Io(error) if error.to_string().contains("failed to lookup address") => {
            Attempt::Refused("the host's name cannot be looked up; is there a connection?".into())
        }
        // rustls' error comes wrapped in one of the standard library.
        ureq::Error::Io(error) if error.to_string().starts_with(UNTRUSTED) => Attempt::Refused(format!(
            "the server's certificate is not accepted ({}): the clock may be wrong, or a proxy shows a certificate of its own; a mirror \
             with an http:// address needs none, as every file is verified",
            error.to_string().trim_start_matches(UNTRUSTED).trim_start_matches([':', ' '])
        )),
        other => Attempt::Cut(format!("no answer ({other})")),
    }
}

/// Whether an address is on this machine, which no proxy needs to reach.
fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']));
    host.is_some_and(|host| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

/// The first byte of `Content-Range: bytes FIRST-LAST/TOTAL`.
fn first_byte(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.trim().parse().ok()
}

/// Most bytes that `file` may have: gzip files may be packed anew, hardly larger than their content.
fn most_bytes(file: &RemoteFile) -> u64 {
    match file.holds {
        Holds::Gzip(content) => file.bytes.max(content.bytes + content.bytes / 1000 + 4096),
        Holds::Itself | Holds::Archive(_) => file.bytes,
    }
}

fn may_have(file: &RemoteFile, bytes: u64) -> bool {
    match file.holds {
        Holds::Gzip(_) => bytes > 0 && bytes <= most_bytes(file),
        Holds::Itself | Holds::Archive(_) => bytes == file.bytes,
    }
}

/// Empties a part, so that the next attempt starts at the first byte.
fn clear(part: &Path) -> Result<(), FetchError> {
    OpenOptions::new().create(true).write(true).truncate(true).open(part).map(drop).map_err(FetchError::io(part, "empty the file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_accepted_is_asked_for_once() {
        let error = ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer"));
        let Attempt::Refused(reason) = explain(&error) else { panic!("asked for again") };
        assert!(reason.contains("not accepted (UnknownIssuer)") && reason.contains("http://"), "{reason}");
        assert!(matches!(explain(&ureq::Error::Io(io::Error::other("reset"))), Attempt::Cut(_)));
    }

    #[test]
    fn loopback_addresses_need_no_proxy() {
        for (url, expected) in [
            ("http://127.0.0.1:80/x", true),
            ("http://[::1]/x", true),
            ("http://localhost/x", true),
            ("https://127.example.org/x", false),
            ("no address", false),
        ] {
            assert_eq!(is_loopback(url), expected, "{url}");
        }
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(first_byte("bytes 100-199/200"), Some(100));
        assert_eq!(first_byte(" bytes 0-9/*"), Some(0));
        for wrong in ["", "bytes */200", "items 0-9/10", "bytes -5"] {
            assert_eq!(first_byte(wrong), None, "{wrong}");
        }
    }
}
