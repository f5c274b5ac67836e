//! Processes of this program's own that do what a driver may crash or hang in: started by a verb, which goes on without
//! them whatever becomes of them.
//!
//! A worker is a hidden verb that reads its job as JSON from standard input and says what it finds in lines on standard
//! output; one of those asks to be ended.

use super::context::Context;
use crate::errors::one_line;
use crate::gpu::tuner::Watchdog;
use serde::Serialize;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// The line by which a worker asks to be ended: its device does not come back.
const STALLED: &str = "stalled";

/// Time for whoever started a worker to end it.
const GRACE: Duration = Duration::from_secs(5);

/// How a worker ended that did not end well.
#[derive(Debug)]
pub enum Ended {
    /// It could not be started.
    NotStarted(String),
    /// It said why it could not go on.
    Failed(String),
    /// It was ended after its time was over.
    Stalled,
    /// Something ended it from outside or from below; with the last line that it wrote on standard error.
    Died(ExitStatus, Option<String>),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::NotStarted(why) => write!(f, "a process cannot be started: {why}"),
            Ended::Failed(why) | Ended::Died(_, Some(why)) => f.write_str(why),
            Ended::Stalled => f.write_str("it was stopped after its time was over"),
            Ended::Died(status, None) => write!(f, "{status}"),
        }
    }
}

/// Runs the hidden verb `verb` on the device of `context` to its end, unless it says nothing for `limit`; `hear` gets what it
/// says.
pub fn run(context: &Context, verb: &str, job: &impl Serialize, limit: Option<Duration>, hear: &mut dyn FnMut(&str)) -> Result<(), Ended> {
    let not_started = |error: &dyn fmt::Display| Ended::NotStarted(error.to_string());
    let program = std::env::current_exe().map_err(|error| not_started(&error))?;
    let job = serde_json::to_vec(job).map_err(|error| not_started(&error))?;
    let mut command = Command::new(program);
    command.args([verb, "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(device) = context.device() {
        command.args(["--device", device]);
    }
    let mut worker = command.spawn().map_err(|error| not_started(&error))?;
    if let Some(mut stdin) = worker.stdin.take() {
        // A worker that ends before it has read its job says why below.
        let _ = stdin.write_all(&job);
    }
    // Read on threads: a process that hangs within its driver may not go away even when it is ended.
    let (sender, lines) = mpsc::channel();
    listen(worker.stdout.take(), Heard::Line, sender.clone());
    listen(worker.stderr.take(), Heard::Error, sender);
    let mut last_error = None;
    loop {
        let heard = match limit {
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(limit) => lines.recv_timeout(limit),
        };
        match heard {
            Ok(Heard::Line(line)) if line == STALLED => return Err(end(worker)),
            Ok(Heard::Line(line)) => hear(&line),
            Ok(Heard::Error(line)) if line.trim().is_empty() => {}
            Ok(Heard::Error(line)) => last_error = Some(line),
            Err(RecvTimeoutError::Timeout) => return Err(end(worker)),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = worker.wait().map_err(|error| Ended::Failed(error.to_string()))?;
    // A verb that fails says so in one line, with an exit code of this program.
    let failure = last_error.as_deref().and_then(|line| line.strip_prefix("error: ")).filter(|_| status.code().is_some());
    match failure {
        _ if status.success() => Ok(()),
        Some(line) => Err(Ended::Failed(one_line(line, 400))),
        None => Err(Ended::Died(status, last_error.map(|line| one_line(&line, 400)))),
    }
}

/// A line on a worker's standard output or standard error.
enum Heard {
    Line(String),
    Error(String),
}

fn listen(stream: Option<impl Read + Send + 'static>, heard: fn(String) -> Heard, sender: Sender<Heard>) {
    std::thread::spawn(move || {
        let lines = stream.into_iter().flat_map(|stream| BufReader::new(stream).lines().map_while(Result::ok));
        // Nobody listens any more once the time is over.
        let _ = lines.map(heard).try_for_each(|line| sender.send(line));
    });
}

/// Ends a worker, and waits for it no longer than it takes one that can be ended.
fn end(mut worker: Child) -> Ended {
    // It may be gone by itself.
    let _ = worker.kill();
    let started = Instant::now();
    while matches!(worker.try_wait(), Ok(None)) && started.elapsed() < GRACE {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ended::Stalled
}

/// For workers: a clock that asks to be ended once its time is over.
pub fn watchdog() -> Watchdog {
    Watchdog::new(|| {
        say(STALLED);
        std::thread::sleep(GRACE);
        // Nobody is there. Exiting in order would wait for the device.
        std::process::abort();
    })
}

/// For workers: tells of something found. Whoever reads may have gone; there is nowhere to report that.
pub fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
