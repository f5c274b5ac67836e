//! What tuning has found, kept in the user's cache folder: a JSON file for each adapter and driver.

use super::{Finding, Verdict};
use crate::gpu::Gpu;
use crate::kernels::{self, Choices, Problem};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What findings hold for: an adapter behind a driver, and the kernels of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The adapter's name.
    pub adapter: String,
    /// `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// Vendor and device numbers.
    pub ids: [u32; 2],
    /// The class whose kernels are used.
    pub class: String,
    /// Version of this program.
    pub program: String,
    /// SHA-256 over all shaders.
    pub kernels: String,
}

impl Identity {
    /// Of an opened device.
    pub fn of(gpu: &Gpu) -> Self {
        let adapter = gpu.adapter();
        Identity {
            adapter: adapter.name.clone(),
            backend: adapter.backend.to_string(),
            driver: adapter.driver.clone(),
            ids: adapter.ids,
            class: format!("{:?}", gpu.target().class).to_lowercase(),
            program: env!("CARGO_PKG_VERSION").to_string(),
            kernels: kernels_digest(),
        }
    }

    /// Name of a file of a kind for each adapter, driver and class; that of another version of this program takes its place.
    pub(in crate::gpu) fn file_name(&self, kind: &str) -> String {
        let Identity { adapter, backend, driver, ids, class, .. } = self;
        let digest = hex(&Sha256::digest(format!("{adapter}\n{backend}\n{driver}\n{ids:?}\n{class}")));
        let letters = adapter.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
        let slug: String = letters.take(40).collect();
        format!("{kind}-{}-{}.json", slug.trim_matches('-'), &digest[..12])
    }
}

fn kernels_digest() -> String {
    let sources: BTreeMap<&str, &str> = kernels::ALL.iter().map(|kernel| (kernel.module, kernel.source)).collect();
    let mut digest = Sha256::new();
    for (module, source) in sources {
        digest.update(format!("{module} {}\n{source}\n", source.len()));
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The findings for one adapter, and the candidates that must not be tried again.
#[derive(Debug)]
pub struct TuningCache {
    path: PathBuf,
    identity: Identity,
    findings: BTreeMap<Problem, Finding>,
    /// Candidates during whose trial the process or the device came to an end.
    lost: Vec<Lost>,
}

/// A candidate that is being tried, or during whose trial the process came to an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    problem: Problem,
    candidate: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    identity: Identity,
    lost: Vec<Lost>,
    findings: Vec<Finding>,
}

/// Held while a process tunes for an adapter; others find the file locked.
pub struct TuningLock(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl TuningCache {
    /// Reads the findings for `identity` in `folder`. A file that is damaged or of another version counts as none; the
    /// second result says so.
    pub fn open(folder: &Path, identity: Identity) -> (Self, Option<String>) {
        let path = folder.join(identity.file_name("tuning"));
        let mut cache = TuningCache { path, identity, findings: BTreeMap::new(), lost: Vec::new() };
        let note = cache.read().err().map(|why| format!("{} is not used: {why}", cache.path.display()));
        (cache, note)
    }

    /// Reads the file again, after another process has written it.
    pub fn reopen(&self) -> Self {
        let mut cache =
            TuningCache { path: self.path.clone(), identity: self.identity.clone(), findings: BTreeMap::new(), lost: Vec::new() };
        match cache.read() {
            Ok(()) => cache,
            // What is known here is not worse for a file that cannot be read any more.
            Err(_) => TuningCache { findings: self.findings.clone(), lost: self.lost.clone(), ..cache },
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self) -> Result<(), String> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| error.to_string())?,
        };
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| format!("damaged: {error}"))?;
        if content.identity != self.identity {
            return Err("made by another version of this program".into());
        }
        self.findings = content.findings.into_iter().map(|finding| (finding.problem.clone(), finding)).collect();
        self.lost = content.lost;
        Ok(())
    }

    /// The finding for a problem.
    pub fn get(&self, problem: &Problem) -> Option<&Finding> {
        self.findings.get(problem)
    }

    /// The choices that differ from those of the rules.
    pub fn choices(&self) -> Choices {
        let better = self.findings.values().filter(|finding| finding.choice != finding.rules);
        Choices(better.map(|finding| (finding.problem.clone(), finding.choice.clone())).collect())
    }

    /// Problems without a finding, or with `full` without one that comes of all candidates.
    pub fn missing(&self, problems: &[Problem], full: bool) -> Vec<Problem> {
        let is_known = |problem: &&Problem| self.get(problem).is_some_and(|finding| finding.full || !full);
        problems.iter().filter(|problem| !is_known(problem)).cloned().collect()
    }

    /// Takes the right to tune for this adapter; `None` while another process has it.
    pub fn lock(&self) -> io::Result<Option<TuningLock>> {
        self.make_folder()?;
        let file = File::options().create(true).truncate(false).write(true).open(self.path.with_extension("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(TuningLock(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Forgets what is known of problems, candidates that were lost included.
    pub fn forget(&mut self, problems: &[Problem]) -> io::Result<()> {
        self.findings.retain(|problem, _| !problems.contains(problem));
        self.lost.retain(|lost| !problems.contains(&lost.problem));
        match fs::remove_file(self.trying()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.save()
    }

    /// Notes for good what was being tried when an earlier process came to an end.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let bytes = match fs::read(self.trying()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        // A file that was cut off while it was written was followed by no trial.
        if let Ok(lost) = serde_json::from_slice::<Lost>(&bytes) {
            self.lost.push(lost);
            self.save()?;
        }
        self.end_trial()
    }

    /// Whether a candidate must not be tried: it was lost for this problem, or for two others.
    pub(super) fn is_lost(&self, problem: &Problem, candidate: &str) -> bool {
        let of_candidate = || self.lost.iter().filter(|lost| lost.candidate == candidate);
        of_candidate().any(|lost| lost.problem == *problem) || of_candidate().count() >= 2
    }

    /// Whether anything of this name was ever lost, for whatever problem.
    pub(super) fn was_ever_lost(&self, candidate: &str) -> bool {
        self.lost.iter().any(|lost| lost.candidate == candidate)
    }

    /// Notes that a candidate is about to be tried, so that it stays known should the process not survive.
    pub(super) fn begin_trial(&self, problem: &Problem, candidate: &str) -> io::Result<()> {
        let lost = Lost { problem: problem.clone(), candidate: candidate.to_string() };
        let mut file = File::create(self.trying())?;
        file.write_all(&serde_json::to_vec(&lost)?)?;
        file.sync_all()
    }

    /// Notes that the candidate came back.
    pub(super) fn end_trial(&self) -> io::Result<()> {
        fs::remove_file(self.trying())
    }

    /// Adds a finding and writes the file.
    pub(super) fn record(&mut self, finding: Finding) -> io::Result<()> {
        self.findings.insert(finding.problem.clone(), finding);
        self.save()
    }

    /// Whether a trial was begun and not ended: while no process tunes, one came to an end within it.
    pub fn has_open_trial(&self) -> bool {
        self.trying().exists()
    }

    /// Ends the trial that is under way because the user stopped the process, which is no fault of the candidate.
    pub fn cancel_trial(&self) {
        let _ = self.end_trial();
    }

    /// Candidates that did not come back, for tests and reports.
    pub fn lost_candidates(&self) -> impl Iterator<Item = (&Problem, &str)> {
        self.lost.iter().map(|lost| (&lost.problem, lost.candidate.as_str()))
    }

    fn trying(&self) -> PathBuf {
        self.path.with_extension("trying")
    }

    fn make_folder(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), fs::create_dir_all)
    }

    /// Replaces the file as a whole.
    fn save(&self) -> io::Result<()> {
        let findings = self.findings.values().cloned().collect();
        let content = Content { identity: self.identity.clone(), lost: self.lost.clone(), findings };
        self.make_folder()?;
        let partial = self.path.with_extension("partial");
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(&content)?)?;
        file.sync_all()?;
        fs::rename(&partial, &self.path)
    }
}

impl Finding {
    /// Nothing could be measured: the rules hold.
    pub(super) fn unmeasured(problem: &Problem, rules: crate::kernels::Choice, full: bool, verdict: Verdict) -> Self {
        let tried = vec![super::Tried { candidate: rules.to_string(), ms: None, verdict }];
        Finding { problem: problem.clone(), full, choice: rules.clone(), rules, rules_ms: None, ms: None, tried }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::tuner::Tried;
    use crate::kernels::Choice;

    fn identity() -> Identity {
        Identity {
            adapter: "Some GPU (TM) / 16 GB".into(),
            backend: "vulkan".into(),
            driver: "driver 1.2".into(),
            ids: [0x10de, 7],
            class: "discrete".into(),
            program: "1.0.0".into(),
            kernels: kernels_digest(),
        }
    }

    fn problem(batch: usize) -> Problem {
        format!("conv2d {batch}x4x5x6 to 8, kernel 1x1, stride 1x1, padding 0x0").parse().unwrap()
    }

    fn finding(batch: usize, full: bool, choice: &str) -> Finding {
        let rules: Choice = "tiled, splits 1, pixels first".parse().unwrap();
        let choice: Choice = choice.parse().unwrap();
        let tried = vec![
            Tried { candidate: rules.to_string(), ms: Some(2.5), verdict: Verdict::Slower },
            Tried { candidate: "x".into(), ms: None, verdict: Verdict::Wrong("element 3".into()) },
        ];
        Finding { problem: problem(batch), full, rules, rules_ms: Some(2.5), choice, ms: Some(1.25), tried }
    }

    #[test]
    fn findings_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not/there/yet");
        let (mut cache, note) = TuningCache::open(&path, identity());
        assert!(note.is_none() && cache.choices().is_empty());
        cache.record(finding(1, false, "gemm_64x64, splits 4, pixels first")).unwrap();
        cache.record(finding(2, true, "tiled, splits 1, pixels first")).unwrap();
        let (read, note) = TuningCache::open(&path, identity());
        assert_eq!(note, None);
        assert_eq!(read.get(&problem(1)), Some(&finding(1, false, "gemm_64x64, splits 4, pixels first")));
        // What the rules choose anyway is no choice.
        assert_eq!(read.choices().0.into_keys().collect::<Vec<_>>(), [problem(1)]);
        let all = [problem(1), problem(2), problem(3)];
        assert_eq!(read.missing(&all, false), [problem(3)]);
        assert_eq!(read.missing(&all, true), [problem(1), problem(3)]);
        assert_eq!(cache.reopen().findings, read.findings);
        cache.forget(&all[..1]).unwrap();
        assert_eq!(TuningCache::open(&path, identity()).0.missing(&all, false), [problem(1), problem(3)]);
    }

    #[test]
    fn another_adapter_has_another_file_and_another_version_none() {
        let folder = tempfile::tempdir().unwrap();
        let (mut cache, _) = TuningCache::open(folder.path(), identity());
        cache.record(finding(1, false, "gemm_64x64, splits 4, pixels first")).unwrap();
        let others = [
            Identity { driver: "driver 1.3".into(), ..identity() },
            Identity { adapter: "Other".into(), ..identity() },
            Identity { ids: [0x10de, 8], ..identity() },
            Identity { class: "cpu".into(), ..identity() },
        ];
        for other in others {
            let (other, note) = TuningCache::open(folder.path(), other);
            assert!(other.path() != cache.path() && note.is_none() && other.choices().is_empty());
        }
        for other in [Identity { program: "1.0.1".into(), ..identity() }, Identity { kernels: String::new(), ..identity() }] {
            let (other, note) = TuningCache::open(folder.path(), other);
            assert!(note.is_some_and(|note| note.contains("another version")) && other.choices().is_empty());
            assert_eq!(other.path(), cache.path());
        }
        assert_eq!(kernels_digest().len(), 64);
    }

    #[test]
    fn a_candidate_that_was_lost_stays_lost() {
        let folder = tempfile::tempdir().unwrap();
        let lose = |batch, candidate: &str| {
            let (cache, _) = TuningCache::open(folder.path(), identity());
            cache.make_folder().unwrap();
            cache.begin_trial(&problem(batch), candidate).unwrap();
            // Here the process ends. The next one finds out.
            assert!(cache.has_open_trial());
            let (mut cache, _) = TuningCache::open(folder.path(), identity());
            cache.settle().unwrap();
            assert!(!cache.has_open_trial());
            TuningCache::open(folder.path(), identity()).0
        };
        let cache = lose(1, "a");
        assert!(cache.is_lost(&problem(1), "a") && !cache.is_lost(&problem(1), "b") && !cache.is_lost(&problem(2), "a"));
        // One that was lost twice is not tried anywhere.
        let cache = lose(2, "a");
        assert!(cache.is_lost(&problem(3), "a") && !cache.is_lost(&problem(3), "b"));
        assert!(cache.was_ever_lost("a") && !cache.was_ever_lost("b"));
        // What the user stopped is no candidate's fault, nor is what was never begun.
        cache.begin_trial(&problem(4), "b").unwrap();
        cache.cancel_trial();
        fs::write(cache.trying(), "{\"problem\"").unwrap();
        let mut cache = TuningCache::open(folder.path(), identity()).0;
        cache.settle().unwrap();
        assert!(!cache.is_lost(&problem(4), "b") && cache.lost.len() == 2);
    }

    #[test]
    fn one_process_tunes_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [0, 1].map(|_| TuningCache::open(folder.path(), identity()).0);
        let lock = first.lock().unwrap();
        assert!(lock.is_some() && second.lock().unwrap().is_none());
        drop(lock);
        assert!(second.lock().unwrap().is_some());
    }
}
