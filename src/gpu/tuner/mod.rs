//! Measures which kernels compute a convolution fastest on the device at hand.
//!
//! For each problem the candidates of [`Task::candidates`] run on random inputs of the real size. One may win only if it
//! is right, and what is right is established in three steps:
//!
//! 1. The rules' own kernel computes whole numbers whose sums are exact in every order. A sample of its results, the first
//!    and the last among them, must equal sums made on the host in double precision.
//! 2. Every candidate computes the same whole numbers. Each element of its result must equal that of the rules' kernel,
//!    of which the device keeps a copy: a kernel counts the elements that differ.
//!    An index, a padding, a lost or a doubled product that is wrong anywhere in the result shows here, whatever the order
//!    of summation; and a reference of every element in double precision, which would take minutes, is not needed: the
//!    rules' kernels are those that `check` and the test suite prove.
//! 3. The winner computes reals, twice. Both results must have the same bits, and the sample must lie within the rounding
//!    of a sum: this finds what whole numbers hide, arithmetic in less than single precision and results that depend
//!    on timing.
//!
//! Candidates that do not compile, do not fit, or take longer than a limit are left out. One that never returns, or takes
//! the process with it, cannot be stopped from within: [`TuningCache`] remembers what is being tried, so that the next
//! process leaves it out, and a [`Watchdog`] can end this one.
//!
//! The candidates of all problems are compiled first, in parallel. Should the process end in that, no candidate is known to
//! blame: from then on each is compiled when its turn comes, under its own name, and the one to blame is found.

mod cache;
pub mod folder;
pub mod faults;
pub mod search;
mod trial;
mod watchdog;

pub use cache::{Identity, TuningCache, TuningLock};
pub use trial::whole_period;
pub use watchdog::Watchdog;

use super::{Gpu, GpuError};
use crate::graph::{Graph, Lowered, Lowering};
use crate::kernels::{Choice, Choices, Kernel, Problem, Target};
use crate::ops::conv2d::Task;
use crate::shape::Fact;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};
use trial::{Contender, Trial, Values, is_lack_of_memory};

/// A candidate is taken over the rules' only if its median time is below this share of theirs.
const WINS_BELOW: f64 = 0.97;
/// Share of the rounds in which it must be faster.
const WINS_ROUNDS: f64 = 2.0 / 3.0;
/// A candidate that takes this many times as long as the rules' is not measured again.
const HOPELESS: f64 = 1.5;
/// Scratch memory that a candidate may have beyond four times that of the rules'.
const EXTRA_SCRATCH: u64 = 64 << 20;
/// Share of the budget that the rounds of one problem may take.
const ROUNDS_SHARE: u32 = 24;

/// One way to compute a problem, ready to be tried.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// For reports.
    pub name: String,
    /// What winning means; `None` for what was planted.
    pub choice: Option<Choice>,
    /// Its kernels.
    pub lowered: Lowered,
}

/// What came of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// Right, and the fastest.
    Fastest,
    /// Right, and slower than another or not clearly faster than the rules'.
    Slower,
    /// Wrong results.
    Wrong(String),
    /// Needs more memory than it may have.
    DoesNotFit(String),
    /// The driver does not take it.
    DoesNotCompile(String),
    /// Took longer than the limit.
    TooSlow,
    /// The process or the device came to an end while it was tried.
    Lost,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Fastest => f.write_str("fastest"),
            Verdict::Slower => f.write_str("slower"),
            Verdict::Wrong(why) => write!(f, "wrong: {why}"),
            Verdict::DoesNotFit(why) => write!(f, "does not fit: {why}"),
            Verdict::DoesNotCompile(why) => write!(f, "does not compile: {why}"),
            Verdict::TooSlow => f.write_str("took too long"),
            Verdict::Lost => f.write_str("did not return"),
        }
    }
}

/// A candidate and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Its name.
    pub candidate: String,
    /// The median of its times in milliseconds, where it was measured.
    pub ms: Option<f64>,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Tried {
    /// Whether it was left out for another reason than its speed.
    pub fn is_refused(&self) -> bool {
        !matches!(self.verdict, Verdict::Fastest | Verdict::Slower)
    }
}

/// What is known of a problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The problem.
    pub problem: Problem,
    /// Whether all candidates were tried, not only the most promising.
    pub full: bool,
    /// What the rules choose.
    pub rules: Choice,
    /// Median milliseconds of it, where it could be measured.
    pub rules_ms: Option<f64>,
    /// The winner: that of the rules where none is clearly faster.
    pub choice: Choice,
    /// Median milliseconds of it.
    pub ms: Option<f64>,
    /// Every candidate.
    pub tried: Vec<Tried>,
}

/// Adds candidates behind that of the rules, whose kernels it gets: for tests.
pub type Plant<'a> = &'a dyn Fn(&Lowered) -> Vec<Candidate>;

/// How to measure.
#[derive(Clone, Copy)]
pub struct TuneOptions<'a> {
    /// Try all candidates, not only the most promising.
    pub full: bool,
    /// Time in all. What was begun when it is over is finished, but for its rounds.
    pub budget: Duration,
    /// Time for making a candidate ready. Drivers may do that during its first run.
    pub compile_limit: Duration,
    /// Time for a run; at least four times that of the rules'.
    pub run_limit: Duration,
    /// Ends the process where a limit is over and the device has not come back.
    pub watchdog: Option<&'a Watchdog>,
    /// Candidates from elsewhere.
    pub plant: Option<Plant<'a>>,
}

impl TuneOptions<'_> {
    /// The most promising candidates; with what was begun, within 20 seconds.
    pub fn quick() -> Self {
        TuneOptions {
            full: false,
            budget: Duration::from_secs(12),
            compile_limit: Duration::from_secs(5),
            run_limit: Duration::from_secs(1),
            watchdog: None,
            plant: None,
        }
    }

    /// All candidates, in about ten minutes.
    pub fn full() -> Self {
        TuneOptions {
            full: true,
            budget: Duration::from_secs(600),
            compile_limit: Duration::from_secs(30),
            run_limit: Duration::from_secs(5),
            ..Self::quick()
        }
    }

    fn rounds(&self) -> usize {
        if self.full { 15 } else { 5 }
    }
}

/// Why tuning came to an end before its time.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The device does not work any more.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// Findings cannot be kept.
    #[error("tuning results cannot be written: {0}")]
    Cache(#[from] io::Error),
}

/// A problem and the layers that pose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posed {
    /// The problem.
    pub problem: Problem,
    /// Paths of the layers.
    pub layers: Vec<String>,
    /// Multiply-adds of all of them.
    pub macs: u64,
}

/// The problems of a graph, each once, those with the most multiply-adds first.
pub fn problems(graph: &Graph) -> Vec<Posed> {
    let mut found: Vec<Posed> = Vec::new();
    for node in &graph.nodes {
        let facts = |ids: &[crate::graph::ValueId]| ids.iter().map(|id| graph.fact(*id)).collect::<Vec<_>>();
        let (inputs, outputs) = (facts(&node.inputs), facts(&node.outputs));
        let Some(problem) = node.op.problem(&inputs, &outputs) else { continue };
        let macs = node.op.macs(&inputs, &outputs);
        match found.iter_mut().find(|posed| posed.problem == problem) {
            Some(posed) => {
                posed.macs += macs;
                posed.layers.push(node.path.clone());
            }
            None => found.push(Posed { problem, layers: vec![node.path.clone()], macs }),
        }
    }
    found.sort_by_key(|posed| std::cmp::Reverse(posed.macs));
    found
}

/// Measures `problems` in their order until all are done or the budget is spent, and adds what it finds to `cache`, one
/// after the other. `found` sees each.
pub fn tune(
    gpu: &Gpu,
    problems: &[Problem],
    cache: &mut TuningCache,
    options: &TuneOptions<'_>,
    found: &mut dyn FnMut(&Finding),
) -> Result<(), TuneError> {
    let deadline = Instant::now() + options.budget;
    cache.settle()?;
    let target = Target { choices: Arc::default(), ..gpu.target().for_runs(usize::MAX) };
    let contests = problems.iter().filter_map(|problem| Contest::new(gpu, problem, &target, options, deadline));
    let contests: Vec<Contest<'_>> = contests.collect();
    if Instant::now() < deadline {
        compile_ahead(gpu, &contests, cache, options)?;
    }
    for contest in &contests {
        if Instant::now() >= deadline {
            break;
        }
        let decided = contest.decide(cache).inspect_err(|error| {
            // The disk's fault is not the candidate's.
            if matches!(error, TuneError::Cache(_)) {
                cache.cancel_trial();
            }
        });
        if let Some(finding) = decided? {
            found(&finding);
            cache.record(finding)?;
        }
    }
    options.watch(None);
    Ok(())
}

/// What compiling ahead is called in the cache while it goes on.
const COMPILING: &str = "compiling";

/// Compiles the kernels of all candidates in parallel. What a driver refuses is told again when that candidate's turn comes.
fn compile_ahead(gpu: &Gpu, contests: &[Contest<'_>], cache: &TuningCache, options: &TuneOptions<'_>) -> Result<(), TuneError> {
    let Some(first) = contests.first().filter(|_| !cache.was_ever_lost(COMPILING)) else { return Ok(()) };
    let kernels = contests.iter().flat_map(|contest| contest.kernels(cache)).map(|kernel| (kernel.name(), kernel));
    let kernels: Vec<&'static Kernel> = kernels.collect::<BTreeMap<_, _>>().into_values().collect();
    let turns = kernels.len().div_ceil(rayon::current_num_threads()) as u32;
    options.watch(Some(options.compile_limit * turns.max(1)));
    cache.begin_trial(first.problem, COMPILING)?;
    gpu.compile_each(&kernels);
    gpu.check()?;
    options.watch(None);
    Ok(cache.end_trial()?)
}

impl TuneOptions<'_> {
    fn watch(&self, limit: Option<Duration>) {
        match (self.watchdog, limit) {
            (Some(watchdog), Some(limit)) => watchdog.arm(limit),
            (Some(watchdog), None) => watchdog.disarm(),
            (None, _) => {}
        }
    }
}

/// The candidates of one problem against each other.
struct Contest<'a> {
    gpu: &'a Gpu,
    problem: &'a Problem,
    task: Task,
    /// What the rules choose.
    rules: Choice,
    /// That of the rules, what was planted, the others; without the first where there is no kernel for it.
    candidates: Vec<Candidate>,
    options: &'a TuneOptions<'a>,
    deadline: Instant,
}

/// A candidate that is right as far as is known, with its times.
struct Running {
    index: usize,
    contender: Contender,
    seconds: Vec<f64>,
}

impl Running {
    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    }
}

/// What the rounds are called in the cache while they run.
const ROUNDS: &str = "measuring";

impl<'a> Contest<'a> {
    /// `None` for what is no problem of a convolution.
    fn new(gpu: &'a Gpu, problem: &'a Problem, target: &Target, options: &'a TuneOptions<'a>, deadline: Instant) -> Option<Self> {
        let task = Task::new(problem)?;
        let choices = task.candidates(target, options.full);
        let rules = choices.first()?.clone();
        let candidates = candidates(problem, &task, target, choices, options.plant);
        Some(Contest { gpu, problem, task, rules, candidates, options, deadline })
    }

    /// Of the candidates that may be tried.
    fn kernels(&self, cache: &TuningCache) -> Vec<&'static Kernel> {
        let candidates = self.candidates.iter().filter(|candidate| !cache.is_lost(self.problem, &candidate.name));
        candidates.flat_map(|candidate| candidate.lowered.dispatches.iter().map(|dispatch| dispatch.kernel)).collect()
    }

    /// Tries all candidates; `None` where the budget is spent before they can be compared.
    fn decide(&self, cache: &TuningCache) -> Result<Option<Finding>, TuneError> {
        let (rules, candidates) = (&self.rules, &self.candidates);
        let unmeasured = |verdict| Ok(Some(Finding::unmeasured(self.problem, rules.clone(), self.options.full, verdict)));
        if cache.is_lost(self.problem, &rules.to_string()) || cache.is_lost(self.problem, ROUNDS) {
            return unmeasured(Verdict::Lost);
        }
        let mut trial = match Trial::new(self.gpu, &self.task) {
            Ok(trial) => trial,
            Err(error) if is_lack_of_memory(&error) => return unmeasured(Verdict::DoesNotFit(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        if candidates.first().and_then(|candidate| candidate.choice.as_ref()) != Some(rules) {
            return unmeasured(Verdict::DoesNotCompile(format!("there is no such kernel for {}", self.problem.element.name())));
        }
        let mut tried: Vec<Tried> = Vec::new();
        let mut running: Vec<Running> = Vec::new();
        let mut limits = Limits::of_rules(self.options);
        for (index, candidate) in candidates.iter().enumerate() {
            if Instant::now() >= self.deadline {
                return Ok(None);
            }
            let mut entry = Tried { candidate: candidate.name.clone(), ms: None, verdict: Verdict::Slower };
            if cache.is_lost(self.problem, &candidate.name) {
                entry.verdict = Verdict::Lost;
            } else {
                cache.begin_trial(self.problem, &candidate.name)?;
                match self.check(&mut trial, index, &limits)? {
                    Ok((contender, seconds)) => {
                        if index == 0 {
                            limits = Limits::beside(self.options, seconds, &candidate.lowered);
                        }
                        entry.ms = Some(seconds * 1e3);
                        let is_hopeless = tried.first().and_then(|rules| rules.ms).is_some_and(|ms| seconds * 1e3 > HOPELESS * ms);
                        if !is_hopeless {
                            running.push(Running { index, contender, seconds: Vec::new() });
                        }
                    }
                    Err(verdict) => entry.verdict = verdict,
                }
                self.options.watch(None);
                cache.end_trial()?;
            }
            tried.push(entry);
            if running.is_empty() {
                // Without the rules' kernel there is nothing to compare with.
                return unmeasured(tried.remove(0).verdict);
            }
        }
        trial.fill(Values::Real)?;
        cache.begin_trial(self.problem, ROUNDS)?;
        let is_measured = self.measure(&trial, &mut running, &limits, &mut tried)?;
        let winner = if is_measured { winner(&mut trial, &running, &mut tried)? } else { None };
        self.options.watch(None);
        cache.end_trial()?;
        let Some(winner) = winner else { return Ok(None) };
        let Some(choice) = candidates[winner].choice.clone() else { return Ok(None) };
        let (rules_ms, ms) = (tried[0].ms, tried[winner].ms);
        Ok(Some(Finding { problem: self.problem.clone(), full: self.options.full, rules: rules.clone(), rules_ms, choice, ms, tried }))
    }

    /// Runs a candidate on whole numbers and compares it with what the first left, or the first with the reference. What is
    /// right comes back with the seconds of the run.
    fn check(&self, trial: &mut Trial<'_>, index: usize, limits: &Limits) -> Result<Result<(Contender, f64), Verdict>, TuneError> {
        let limit = limits.compile + limits.run;
        self.options.watch(Some(limit));
        let started = Instant::now();
        let contender = match trial.prepare(&self.candidates[index].lowered, limits.scratch)? {
            Ok(contender) => contender,
            Err(verdict) => return Ok(Err(verdict)),
        };
        trial.run(&contender)?;
        if started.elapsed() > limit {
            return Ok(Err(Verdict::TooSlow));
        }
        let wrong = if index == 0 { trial.compare_with_reference()?.err() } else { trial.difference()? };
        if let Some(why) = wrong {
            return Ok(Err(Verdict::Wrong(why)));
        }
        if index == 0 {
            trial.keep()?;
        }
        let seconds = trial.seconds(&contender)?;
        if seconds > limits.run.as_secs_f64() { Ok(Err(Verdict::TooSlow)) } else { Ok(Ok((contender, seconds))) }
    }

    /// Times all that run in turns, so that what slows the device for a while slows all of them; false where the budget
    /// is spent before there were three rounds. Candidates without a chance leave after each.
    fn measure(&self, trial: &Trial<'_>, running: &mut Vec<Running>, limits: &Limits, tried: &mut [Tried]) -> Result<bool, TuneError> {
        let started = Instant::now();
        let mut rounds = 0;
        while rounds < self.options.rounds() {
            let is_spent = Instant::now() >= self.deadline;
            if rounds >= 3 && (is_spent || started.elapsed() > self.options.budget / ROUNDS_SHARE) {
                break;
            }
            if is_spent {
                return Ok(false);
            }
            for contestant in running.iter_mut() {
                self.options.watch(Some(limits.run + limits.compile));
                contestant.seconds.push(trial.seconds(&contestant.contender)?);
            }
            rounds += 1;
            let rules = running.first().map_or(0.0, Running::median);
            running.retain(|contestant| {
                tried[contestant.index].ms = Some(contestant.median() * 1e3);
                contestant.index == 0 || contestant.median() < HOPELESS * rules
            });
            if running.len() == 1 && rounds >= 3 {
                break;
            }
        }
        Ok(true)
    }
}

/// The choices as candidates, with what is planted behind that of the rules.
fn candidates(problem: &Problem, task: &Task, target: &Target, choices: Vec<Choice>, plant: Option<Plant<'_>>) -> Vec<Candidate> {
    let (inputs, outputs): (Vec<&Fact>, Vec<&Fact>) = (task.inputs.iter().collect(), task.outputs.iter().collect());
    let mut candidates: Vec<Candidate> = choices
        .into_iter()
        .filter_map(|choice| {
            let choices = Arc::new(Choices([(problem.clone(), choice.clone())].into()));
            let target = Target { choices, ..target.clone() };
            let lowered = task.op.lower(&Lowering {
                target: &target,
                inputs: inputs.clone(),
                outputs: outputs.clone(),
                is_read: vec![true; outputs.len()],
                in_place: false,
            });
            let lowered = lowered.for_facts(&inputs, &outputs).ok()?;
            Some(Candidate { name: choice.to_string(), choice: Some(choice), lowered })
        })
        .collect();
    if let (Some(plant), Some(rules)) = (plant, candidates.first()) {
        let planted = plant(&rules.lowered);
        candidates.splice(1..1, planted);
    }
    candidates
}

/// The fastest that is clearly faster than the rules' and right on reals, else that of the rules, by its index.
fn winner(trial: &mut Trial<'_>, running: &[Running], tried: &mut [Tried]) -> Result<Option<usize>, TuneError> {
    let Some((rules, others)) = running.split_first() else { return Ok(None) };
    let mut order: Vec<&Running> = others.iter().filter(|other| other.is_clearly_faster(rules)).collect();
    order.sort_by(|a, b| a.median().total_cmp(&b.median()));
    for contestant in order.into_iter().chain([rules]) {
        trial.run(&contestant.contender)?;
        trial.keep()?;
        trial.run(&contestant.contender)?;
        let wrong = match trial.difference()? {
            Some(why) => Some(format!("two runs differ: {why}")),
            None => trial.compare_with_reference()?.err(),
        };
        match wrong {
            None => {
                tried[contestant.index].verdict = Verdict::Fastest;
                return Ok(Some(contestant.index));
            }
            Some(why) => tried[contestant.index].verdict = Verdict::Wrong(why),
        }
    }
    // The rules' own kernel is wrong on reals. That is for `check` to say; nothing here may take its place.
    Ok(Some(0))
}

impl Running {
    fn is_clearly_faster(&self, rules: &Running) -> bool {
        let rounds = self.seconds.len().min(rules.seconds.len());
        let won = self.seconds.iter().zip(&rules.seconds).filter(|(own, theirs)| own < theirs).count();
        self.median() < WINS_BELOW * rules.median() && won as f64 >= WINS_ROUNDS * rounds as f64
    }
}

/// What a candidate may take.
struct Limits {
    compile: Duration,
    run: Duration,
    scratch: u64,
}

impl Limits {
    /// The rules' kernel runs anyway: it may take its time.
    fn of_rules(options: &TuneOptions<'_>) -> Self {
        Limits { compile: options.compile_limit * 2, run: options.run_limit * 5, scratch: u64::MAX }
    }

    /// For candidates beside the rules' one, which took `seconds`.
    fn beside(options: &TuneOptions<'_>, seconds: f64, rules: &Lowered) -> Self {
        let run = options.run_limit.max(Duration::from_secs_f64(4.0 * seconds));
        Limits {
            compile: options.compile_limit,
            run,
            scratch: EXTRA_SCRATCH + 4 * rules.scratch.iter().chain(&rules.textures).sum::<u64>(),
        }
    }
}
