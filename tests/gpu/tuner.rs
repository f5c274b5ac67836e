//! The tuner: what is planted never wins and never stops it, what wins computes what the rules' kernels do, and a choice
//! that was made once gives the same bits from then on.

use crate::kernels::CLASSES;
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::tuner::{Candidate, Finding, Identity, Tried, TuneOptions, TuningCache, Verdict, faults, problems, tune};
use nin_wgpu::gpu::verify::{run_case, run_outputs};
use nin_wgpu::gpu::{Gpu, OpenOptions};
use nin_wgpu::graph::{Case, Lowered, Operand};
use nin_wgpu::kernels::{Binding, BindingKind, Choice, Choices, DeviceClass, Dispatch, Kernel, MatrixUnits, Problem, Target};
use nin_wgpu::models::{InputOptions, Model, Purpose, Training, compile};
use nin_wgpu::ops::conv2d::{Direction, ShapeCase, Task, exact_case, exact_half_case, real_case};
use nin_wgpu::passes::CompileOptions;
use nin_wgpu::shape::{Element, Window};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![
        trial(device, "tuner::planted_faults_never_win_and_never_stop_it", planted_faults_never_win),
        trial(device, "tuner::subtle_faults_never_win", subtle_faults_never_win),
        trial(device, "tuner::a_single_wrong_element_is_found", a_single_wrong_element_is_found),
        trial(device, "tuner::without_room_for_a_copy_it_compares_all_the_same", |_| without_room_for_a_copy()),
        trial(device, "tuner::a_crash_in_compiling_ahead_ends_compiling_ahead", a_crash_in_compiling_ahead),
        trial(device, "tuner::every_candidate_is_right", every_candidate_is_right),
        trial(device, "tuner::a_cached_choice_gives_the_same_bits", a_cached_choice_gives_the_same_bits),
        trial(device, "tuner::what_never_returned_is_not_tried_again", what_never_returned_is_not_tried_again),
        trial(device, "tuner::the_budget_bounds_the_time", the_budget_bounds_the_time),
        trial(device, "tuner::a_model_poses_each_problem_once", a_model_poses_each_problem_once),
    ]
}

fn shape() -> ShapeCase {
    ShapeCase { batch: 2, input: [32, 20, 19], outputs: 64, window: Window::square(3, 1, 1) }
}

fn problem(direction: Direction) -> Problem {
    problem_of(&shape(), direction)
}

fn problem_of(shape: &ShapeCase, direction: Direction) -> Problem {
    let case = exact_case(shape, direction);
    let facts: Vec<_> = case.inputs.iter().map(|(fact, _)| fact).collect();
    let outputs = case.op.outputs(&facts).unwrap();
    case.op.problem(&facts, &outputs.iter().collect::<Vec<_>>()).unwrap()
}

/// How a device's kernels can store activations.
fn elements(gpu: &Gpu) -> &'static [Element] {
    if gpu.target().f16 { &[Element::F32, Element::F16] } else { &[Element::F32] }
}

fn every_problem(gpu: &Gpu) -> Vec<Problem> {
    let stored = |element: &Element| Direction::ALL.map(|direction| Problem { element: *element, ..problem(direction) });
    elements(gpu).iter().flat_map(stored).collect()
}

fn open(gpu: &Gpu, folder: &Path) -> TuningCache {
    TuningCache::open(folder, Identity::of(gpu)).0
}

/// Tunes and returns what was found.
fn find(gpu: &Gpu, problems: &[Problem], folder: &Path, options: &TuneOptions<'_>) -> Result<Vec<Finding>, String> {
    let mut found = Vec::new();
    tune(gpu, problems, &mut open(gpu, folder), options, &mut |finding| found.push(finding.clone())).map_err(|e| e.to_string())?;
    Ok(found)
}

fn expect(holds: bool, what: impl std::fmt::Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

fn planted_faults_never_win(gpu: &Gpu) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let stall = faults::Stall::seconds(gpu);
    let plant = |rules: &Lowered| faults::planted(rules, stall);
    let options = TuneOptions {
        budget: Duration::from_secs(300),
        compile_limit: Duration::from_millis(300),
        run_limit: Duration::from_millis(200),
        plant: Some(&plant),
        ..TuneOptions::quick()
    };
    let problems = [problem(Direction::Forward(true)), problem(Direction::BackwardWeight)];
    let found = find(gpu, &problems, folder.path(), &options)?;
    expect(found.len() == problems.len(), format!("{found:?}"))?;
    for finding in &found {
        let verdict = |name: &str| {
            let name = format!("planted: {name}");
            finding
                .tried
                .iter()
                .find(|tried| tried.candidate == name)
                .map(|tried| tried.verdict.clone())
                .ok_or(format!("{name} is missing"))
        };
        for name in ["does nothing", "does half", "leaves out the last workgroup"] {
            let verdict = verdict(name)?;
            expect(matches!(verdict, Verdict::Wrong(_)), format!("{name}: {verdict}"))?;
        }
        let (hungry, broken, stalling) = (verdict("wants all memory")?, verdict("does not compile")?, verdict("stalls")?);
        expect(matches!(hungry, Verdict::DoesNotFit(_)), hungry)?;
        expect(matches!(broken, Verdict::DoesNotCompile(_)), broken)?;
        expect(stalling == Verdict::TooSlow, stalling)?;
        let winners: Vec<_> = finding.tried.iter().filter(|tried| tried.verdict == Verdict::Fastest).collect();
        expect(winners.len() == 1 && winners[0].candidate == finding.choice.to_string(), format!("{winners:?}"))?;
        expect(finding.rules_ms.is_some() && finding.ms <= finding.rules_ms, format!("{finding:?}"))?;
    }
    // The device works as before, for everybody.
    gpu.check().map_err(|error| error.to_string())?;
    run(gpu, gpu.target(), &exact_case(&shape(), Direction::Forward(true)), Element::F32)?;
    expect(open(gpu, folder.path()).missing(&problems, false).is_empty(), "the cache lacks what was found")
}

/// The rules' own kernels at twice the speed would win; with one constant changed they must not.
fn subtle_faults_never_win(gpu: &Gpu) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let case = real_case(&shape(), Direction::Forward(false));
    let plant = move |rules: &Lowered| {
        let change = |name: &str, change: &dyn Fn(&mut nin_wgpu::kernels::Conv2dParams)| {
            let mut lowered = rules.clone();
            let is_convolution = |params: &[u8]| params.len() == size_of::<nin_wgpu::kernels::Conv2dParams>();
            for dispatch in lowered.dispatches.iter_mut().filter(|dispatch| is_convolution(&dispatch.params)) {
                let mut params = bytemuck::pod_read_unaligned(&dispatch.params);
                change(&mut params);
                dispatch.params = bytemuck::bytes_of(&params).to_vec();
            }
            Candidate { name: name.into(), choice: None, lowered }
        };
        vec![
            change("one column of padding less", &|params| params.pad_w -= 1),
            change("the last input channels left out", &|params| params.kernel_w -= 1),
            change("ReLU where there is none", &|params| params.relu = 1),
        ]
    };
    let options = TuneOptions { budget: Duration::from_secs(300), plant: Some(&plant), ..TuneOptions::quick() };
    let found = find(gpu, &[problem(Direction::Forward(false))], folder.path(), &options)?;
    let planted: Vec<_> = found[0].tried.iter().filter(|tried| tried.candidate.parse::<Choice>().is_err()).collect();
    expect(planted.len() == 3, format!("{planted:?}"))?;
    for tried in planted {
        expect(matches!(tried.verdict, Verdict::Wrong(_)), format!("{}: {}", tried.candidate, tried.verdict))?;
    }
    run(gpu, gpu.target(), &case, Element::F32)
}

/// Kernels that change the last word of what the rules' kernels leave: by the last bit of its upper half, or to NaN.
macro_rules! changes_the_last_word {
    ($module:literal, $change:literal) => {
        Kernel {
            module: $module,
            entry: "main",
            source: concat!(
                "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n",
                "@compute @workgroup_size(1) fn main() { let last = arrayLength(&y) - 1u; y[last] ",
                $change,
                "; }"
            ),
            workgroup_size: [1, 1, 1],
            workgroup_bytes: 0,
            divisible: false,
            subgroups: false,
            int64: false,
            f16: false,
            matrices: false,
            half: None,
            bindings: &[Binding { index: 0, name: "y", kind: BindingKind::ReadWrite, element: Element::F32 }],
        }
    };
}
static LAST_BIT: Kernel = changes_the_last_word!("planted_last_bit", "^= 0x10000u");
static LAST_NAN: Kernel = changes_the_last_word!("planted_last_nan", "= 0x7fc07fc0u");

/// What the rules' kernels compute, with the last word of the first output changed and some scratch memory more.
fn with_last_word(rules: &Lowered, kernel: &'static Kernel, scratch: u64) -> Candidate {
    let mut lowered = rules.clone();
    lowered.dispatches.push(Dispatch { kernel, params: Vec::new(), buffers: vec![Operand::Output(0)], workgroups: 1 });
    if scratch > 0 {
        lowered.scratch.push(scratch);
    }
    Candidate { name: kernel.module.into(), choice: None, lowered }
}

/// Images of so many rows of 257 pixels in four channels, two of them: with few rows more results than are compared at once.
fn pointwise_problem(rows: usize, element: Element) -> Problem {
    let shape = ShapeCase { batch: 2, input: [4, rows, 257], outputs: 4, window: Window::square(1, 1, 0) };
    Problem { element, ..problem_of(&shape, Direction::Forward(false)) }
}

fn expect_last_element(problem: &Problem, tried: &Tried) -> Result<(), String> {
    let Verdict::Wrong(why) = &tried.verdict else { return Err(format!("{}: {}", tried.candidate, tried.verdict)) };
    let [_, h, w] = problem.input;
    let last = problem.batch * h * w * problem.outputs - 1;
    // NaN is put into both halves of a word.
    let first = if problem.element == Element::F16 && tried.candidate == LAST_NAN.module { last - 1 } else { last };
    expect(why.starts_with(&format!("element {first} of output 0: got ")) && why.contains(", the rules' kernel gave "), why)?;
    expect(why.contains(&format!("; {} of {} elements differ", last - first + 1, last + 1)), why)
}

fn a_single_wrong_element_is_found(gpu: &Gpu) -> Result<(), String> {
    let plant = |rules: &Lowered| [&LAST_BIT, &LAST_NAN].map(|kernel| with_last_word(rules, kernel, 0)).to_vec();
    for element in elements(gpu) {
        let folder = tempfile::tempdir().unwrap();
        let problem = pointwise_problem(1024, *element);
        let options = TuneOptions { budget: Duration::from_secs(300), plant: Some(&plant), ..TuneOptions::quick() };
        let found = find(gpu, std::slice::from_ref(&problem), folder.path(), &options)?;
        let planted: Vec<_> = found[0].tried.iter().filter(|tried| tried.candidate.starts_with("planted")).collect();
        expect(planted.len() == 2 && found[0].rules_ms.is_some(), format!("{found:?}"))?;
        planted.into_iter().try_for_each(|tried| expect_last_element(&problem, tried))?;
    }
    Ok(())
}

/// Memory for inputs, outputs and little more, and then for a copy of the outputs, but not for a candidate's scratch beside
/// it: either way results are compared, in full.
fn without_room_for_a_copy() -> Result<(), String> {
    const SCRATCH: u64 = 512 << 10;
    let problem = pointwise_problem(128, Element::F32);
    let task = Task::new(&problem).ok_or("no task")?;
    let bytes: u64 = task.inputs.iter().chain(&task.outputs).map(nin_wgpu::shape::Fact::bytes).sum();
    let copy: u64 = task.outputs.iter().map(nin_wgpu::shape::Fact::bytes).sum();
    for (room, scratch) in [(copy / 2, 0), (copy + SCRATCH / 2, SCRATCH)] {
        let folder = tempfile::tempdir().unwrap();
        // Kernels without scratch memory of their own.
        let options = OpenOptions { class: Some(DeviceClass::Discrete), memory_budget: Some(bytes + room), ..Default::default() };
        let gpu = Gpu::open(&options).map_err(|error| error.to_string())?;
        let plant = |rules: &Lowered| vec![with_last_word(rules, &LAST_BIT, scratch)];
        // The kernels of GPUs take their time on CPUs.
        let [budget, run_limit] = [300, 30].map(Duration::from_secs);
        let options = TuneOptions { budget, compile_limit: run_limit, run_limit, plant: Some(&plant), ..TuneOptions::quick() };
        let found = find(&gpu, std::slice::from_ref(&problem), folder.path(), &options)?;
        expect(found[0].rules_ms.is_some(), format!("{found:?}"))?;
        let planted = found[0].tried.iter().find(|tried| tried.candidate.starts_with("planted")).ok_or("nothing was planted")?;
        expect_last_element(&problem, planted)?;
        let right = found[0].tried.iter().filter(|tried| !tried.is_refused()).count();
        expect(right > 1, format!("only the rules' own kernel is right: {found:?}"))?;
    }
    Ok(())
}

/// No candidate is to blame, and none is left out: they are compiled one by one from then on.
fn a_crash_in_compiling_ahead(gpu: &Gpu) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let [lost, other] = [problem(Direction::Forward(true)), problem(Direction::BackwardWeight)];
    let cache = open(gpu, folder.path());
    std::fs::create_dir_all(folder.path()).unwrap();
    let trying = serde_json::json!({ "problem": lost, "candidate": "compiling" });
    std::fs::write(cache.path().with_extension("trying"), trying.to_string()).unwrap();
    let options = TuneOptions { budget: Duration::from_secs(300), ..TuneOptions::quick() };
    let found = find(gpu, &[lost.clone(), other], folder.path(), &options)?;
    expect(found.len() == 2 && found.iter().all(|finding| finding.rules_ms.is_some()), format!("{found:?}"))?;
    expect(found.iter().flat_map(|finding| &finding.tried).all(|tried| tried.verdict != Verdict::Lost), format!("{found:?}"))?;
    let cache = open(gpu, folder.path());
    expect(cache.lost_candidates().collect::<Vec<_>>() == [(&lost, "compiling")], "the crash is not kept")?;
    expect(!cache.has_open_trial(), "a trial is left open")
}

fn run(gpu: &Gpu, target: &Target, case: &Case, element: Element) -> Result<(), String> {
    let verdict = run_case(gpu, target, case, element).map_err(|error| error.to_string())?;
    verdict.ok_or("there are no kernels for it")?.map(drop)
}

/// All that may be chosen, in every direction and for every class, against the reference in double precision.
fn every_candidate_is_right(gpu: &Gpu) -> Result<(), String> {
    let mut count = 0;
    let narrow = ShapeCase { batch: 2, input: [1, 29, 27], outputs: 32, window: Window::square(5, 2, 2) };
    for (shape, direction) in [shape(), narrow].iter().flat_map(|shape| Direction::ALL.map(|direction| (shape, direction))) {
        let single = problem_of(shape, direction);
        for (element, class) in elements(gpu).iter().flat_map(|element| CLASSES.map(|(class, _)| (*element, class))) {
            let exact = if element == Element::F16 { exact_half_case } else { exact_case };
            let cases = [exact(shape, direction), real_case(shape, direction)];
            let problem = Problem { element, ..single.clone() };
            let task = Task::new(&problem).ok_or("no task")?;
            // Emulated: no device of the test suite has matrix units.
            let matrix_units = if class == DeviceClass::Discrete && gpu.target().f16 { MatrixUnits::Emulated } else { MatrixUnits::None };
            let target = Target { class, matrix_units, ..gpu.target().for_runs(usize::MAX) };
            // Half precision changes what is loaded and stored, not how sums are split.
            for choice in task.candidates(&target, element == Element::F32) {
                let choices = Arc::new(Choices([(problem.clone(), choice.clone())].into()));
                for case in &cases {
                    let target = Target { choices: Arc::clone(&choices), ..target.clone() };
                    run(gpu, &target, case, element).map_err(|error| format!("{problem}: {choice}: {}: {error}", case.name))?;
                    count += 1;
                }
            }
        }
    }
    expect(count > 100, format!("only {count} candidates were run"))
}

fn a_cached_choice_gives_the_same_bits(gpu: &Gpu) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let options = TuneOptions { budget: Duration::from_secs(300), ..TuneOptions::quick() };
    let found = find(gpu, &every_problem(gpu), folder.path(), &options)?;
    // Choices of its own, so that the test does not depend on what is fastest.
    let target = gpu.target().for_runs(usize::MAX);
    for direction in Direction::ALL {
        let problem = problem(direction);
        let case = real_case(&shape(), direction);
        let task = Task::new(&problem).ok_or("no task")?;
        let [first, second] = [0, 1].map(|_| open(gpu, folder.path()));
        expect(first.get(&problem) == second.get(&problem) && first.get(&problem).is_some(), "the cache changes by itself")?;
        let kept = first.get(&problem).map(|finding| &finding.choice);
        let measured = found.iter().find(|finding| finding.problem == problem).map(|finding| &finding.choice);
        expect(kept == measured, "the cache holds something else")?;
        for choice in task.candidates(&target, false) {
            let target = Target { choices: Arc::new(Choices([(problem.clone(), choice.clone())].into())), ..target.clone() };
            let bits = || -> Result<Vec<Vec<u32>>, String> {
                let outputs = run_outputs(gpu, &target, &case).map_err(|error| error.to_string())?;
                Ok(outputs.iter().map(|output| output.iter().map(|v| v.to_bits()).collect()).collect())
            };
            expect(bits()? == bits()?, format!("{problem}: {choice} gives other bits the second time"))?;
        }
    }
    Ok(())
}

/// A process that ends within a trial leaves a note; the next one leaves that candidate out.
fn what_never_returned_is_not_tried_again(gpu: &Gpu) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let problem = problem(Direction::Forward(true));
    let candidates = Task::new(&problem).ok_or("no task")?.candidates(&gpu.target().for_runs(usize::MAX), true);
    let lost = candidates.get(1).ok_or("one candidate only")?.to_string();
    let cache = open(gpu, folder.path());
    std::fs::create_dir_all(folder.path()).unwrap();
    let trying = serde_json::json!({ "problem": problem, "candidate": lost });
    std::fs::write(cache.path().with_extension("trying"), trying.to_string()).unwrap();

    let options = TuneOptions { budget: Duration::from_secs(300), ..TuneOptions::full() };
    for _ in 0..2 {
        let found = find(gpu, std::slice::from_ref(&problem), folder.path(), &options)?;
        let tried = found[0].tried.iter().find(|tried| tried.candidate == lost).ok_or("the candidate is missing")?;
        expect(tried.verdict == Verdict::Lost && found[0].choice.to_string() != lost, format!("{tried:?}"))?;
    }
    let cache = open(gpu, folder.path());
    expect(cache.lost_candidates().collect::<Vec<_>>() == [(&problem, lost.as_str())], "the note is not kept")?;
    expect(!cache.has_open_trial(), "a trial is left open")
}

fn the_budget_bounds_the_time(gpu: &Gpu) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let options = TuneOptions { budget: Duration::ZERO, ..TuneOptions::full() };
    let started = Instant::now();
    let found = find(gpu, &every_problem(gpu), folder.path(), &options)?;
    expect(found.is_empty() && started.elapsed() < Duration::from_secs(5), format!("{found:?} in {:?}", started.elapsed()))?;
    let missing = open(gpu, folder.path()).missing(&every_problem(gpu), false);
    expect(missing == every_problem(gpu), "what was not measured counts as known")
}

fn a_model_poses_each_problem_once(gpu: &Gpu) -> Result<(), String> {
    let model = Model::find("nin-small").ok_or("no model")?;
    let options = model.defaults.clone();
    let input = InputOptions::plain(&options);
    let network = compile(model, &options, &input, Purpose::Train, 4, 4, &Training::default(), gpu.target(), CompileOptions::default());
    let posed = problems(&network.map_err(|error| error.to_string())?.compiled.graph);
    let layers: usize = posed.iter().map(|posed| posed.layers.len()).sum();
    // Nine convolutions forward, as many weight gradients, and one input gradient less.
    expect(layers == 26, format!("{layers} layers"))?;
    expect(posed.iter().enumerate().all(|(i, a)| posed[..i].iter().all(|b| b.problem != a.problem)), "a problem comes twice")?;
    expect(posed.is_sorted_by(|a, b| a.macs >= b.macs), "the most work does not come first")?;
    for posed in &posed {
        let task = Task::new(&posed.problem).ok_or(format!("{} is no task", posed.problem))?;
        expect(task.candidates(gpu.target(), false).len() <= task.candidates(gpu.target(), true).len(), &posed.problem)?;
    }
    Ok(())
}
