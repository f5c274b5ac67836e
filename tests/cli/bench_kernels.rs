//! `bench --kernels`: a folder of kernels is proven and timed, results are gone on with, and what is wrong is said.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{Ran, run, word};
use nin_wgpu::gpu::tuner::folder::{DispatchLine, KernelLine, LIST, OperandName, weight_of};
use nin_wgpu::gpu::tuner::whole_period;
use nin_wgpu::graph::Lowering;
use nin_wgpu::kernels::{DeviceClass, Target};
use nin_wgpu::ops::conv2d::Task;
use serde_json::Value;
use std::fs;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("a_folder_that_cannot_be_used_is_6", Nothing, a_folder_that_cannot_be_used_is_6),
    ("what_belongs_to_models_is_a_usage_error", Nothing, what_belongs_to_models_is_a_usage_error),
    ("kernels_are_proven_and_timed", Device, kernels_are_proven_and_timed),
    ("a_wrong_kernel_is_8_and_one_that_does_not_compile_is_named", Device, a_wrong_kernel_is_8_and_one_that_does_not_compile_is_named),
    ("results_are_gone_on_with", Device, results_are_gone_on_with),
];

/// A pointwise convolution of 4 to 4 channels, with the program's own kernel for GPUs.
fn line(folder: &Path, name: &str) -> KernelLine {
    let problem = "conv2d 1x4x3x5 to 4, kernel 1x1, stride 1x1, padding 0x0".parse().unwrap();
    let task = Task::new(&problem).unwrap();
    let target = Target::baseline(DeviceClass::Discrete);
    let (inputs, outputs) = (task.inputs.iter().collect(), task.outputs.iter().collect());
    let lowered = task.op.lower(&Lowering { target: &target, inputs, outputs, is_read: vec![true], in_place: false });
    let dispatch = &lowered.dispatches[0];
    fs::write(folder.join("own.wgsl"), dispatch.kernel.source).unwrap();
    let dispatch = DispatchLine {
        shader: "own.wgsl".into(),
        entry: dispatch.kernel.entry.into(),
        params: bytemuck::pod_collect_to_vec(&dispatch.params),
        operands: dispatch.buffers.iter().copied().map(OperandName).collect(),
        workgroups: dispatch.workgroups,
    };
    let expected = vec![expected_sum()];
    KernelLine {
        kernel: name.into(),
        design: "as it is".into(),
        problem,
        radius: 8,
        scratch: Vec::new(),
        dispatches: vec![dispatch],
        expected,
    }
}

/// The sum over all results, one after the other.
fn expected_sum() -> u32 {
    let [x, weight, bias] = [0, 1, 2].map(|index| whole_period(index, 8));
    let mut sum = 0u32;
    for pixel in 0..15 {
        for output in 0..4 {
            let products: f32 = (0..4).map(|c| x[pixel * 4 + c] * weight[c * 4 + output]).sum();
            let weights = weight_of(pixel as u32).wrapping_mul(weight_of(!(output as u32)));
            sum = sum.wrapping_add(weights.wrapping_mul((products + bias[output]) as i32 as u32));
        }
    }
    sum
}

fn write(folder: &Path, lines: &[KernelLine]) {
    let lines: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    fs::write(folder.join(LIST), lines.join("\n")).unwrap();
}

fn bench(folder: &Path, more: &[&str]) -> Ran {
    run(&[&["bench", "--kernels", &word(folder), "--json"], more].concat())
}

fn kernels(ran: &Ran) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    report["kernels"].as_array().unwrap().clone()
}

fn a_folder_that_cannot_be_used_is_6() {
    let folder = tempfile::tempdir().unwrap();
    let says = |part: &str| {
        let ran = bench(folder.path(), &[]);
        assert_eq!(ran.code, Some(6), "{ran}");
        assert!(ran.stderr.lines().count() == 1 && ran.stderr.contains("kernels.jsonl") && ran.stderr.contains(part), "{part}: {ran}");
    };
    says("No such file");
    let whole = line(folder.path(), "whole");
    type Breaks = (&'static dyn Fn(&mut KernelLine), &'static str);
    let broken: [Breaks; 9] = [
        (&|line| line.dispatches[0].entry = "nothing".into(), "there is no such entry point"),
        (&|line| line.dispatches[0].operands.truncate(1), "operands"),
        (&|line| line.dispatches[0].params.truncate(5), "bytes of constants, not 20"),
        (&|line| line.dispatches[0].workgroups = 0, "0 workgroups"),
        (&|line| line.scratch = vec![6], "a scratch buffer of 6 bytes"),
        (&|line| line.dispatches.clear(), "at least one dispatch"),
        (&|line| line.expected.push(1), "2 expected sums, but 1 outputs"),
        (&|line| line.problem.op = "conv3d".into(), "is no problem that can be computed"),
        (&|line| line.dispatches[0].operands[0] = "scratch 3".to_string().try_into().unwrap(), "there is no scratch 3"),
    ];
    for (breaks, part) in broken {
        let mut line = whole.clone();
        breaks(&mut line);
        write(folder.path(), &[line]);
        says(part);
    }
    write(folder.path(), &[whole.clone(), whole]);
    says("line 2: there is a kernel \"whole\" already");
    fs::write(folder.path().join(LIST), "{}").unwrap();
    says("line 1: missing field");
}

fn what_belongs_to_models_is_a_usage_error() {
    for more in [["--model", "nin"], ["--tune", "off"], ["--steps", "3"]] {
        let ran = bench(Path::new("nowhere"), &more);
        assert_eq!(ran.code, Some(2), "{more:?}: {ran}");
    }
    assert_eq!(run(&["bench", "--results", "x.jsonl"]).code, Some(2));
}

fn kernels_are_proven_and_timed() {
    let folder = tempfile::tempdir().unwrap();
    let probe = KernelLine { expected: Vec::new(), ..line(folder.path(), "probe") };
    write(folder.path(), &[line(folder.path(), "own"), probe]);
    let ran = bench(folder.path(), &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let found = kernels(&ran);
    let verdicts: Vec<&str> = found.iter().map(|kernel| kernel["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["right", "probe"], "{ran}");
    assert!(found.iter().all(|kernel| kernel["ms"].as_f64().unwrap() > 0.0), "{ran}");
    let text = run(&["bench", "--kernels", &word(folder.path())]);
    assert!(text.code == Some(0) && text.stdout.contains("1 of 2 kernels are right, 0 wrong"), "{text}");
}

fn a_wrong_kernel_is_8_and_one_that_does_not_compile_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = line(folder.path(), "wrong");
    // One channel less.
    wrong.dispatches[0].params[3] = 0;
    let mut unfinished = line(folder.path(), "unfinished");
    unfinished.dispatches[0].shader = "unfinished.wgsl".into();
    fs::write(folder.path().join("unfinished.wgsl"), "// Not yet.\nfn forward() { return 1u; }\n").unwrap();
    write(folder.path(), &[wrong, unfinished, line(folder.path(), "own")]);
    let ran = bench(folder.path(), &[]);
    assert_eq!(ran.code, Some(8), "{ran}");
    let by_name = |name: &str| kernels(&ran).into_iter().find(|kernel| kernel["kernel"] == name).unwrap();
    assert_eq!(by_name("wrong")["verdict"], "wrong");
    assert_eq!(by_name("unfinished")["verdict"], "does not compile");
    assert!(by_name("unfinished")["why"].as_str().unwrap().contains("unfinished.wgsl"), "{ran}");
    assert_eq!(by_name("own")["verdict"], "right");
}

/// As after a call that was ended while a kernel ran, in the middle of writing a line.
fn results_are_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.jsonl");
    let lines = ["first", "second", "third"].map(|name| line(folder.path(), name));
    write(folder.path(), &lines[..1]);
    let ran = bench(folder.path(), &["--results", &word(&results)]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let kept = fs::read_to_string(&results).unwrap() + "{\"trying\":\"second\"}\n{\"kern";
    fs::write(&results, kept).unwrap();
    write(folder.path(), &lines);
    let ran = bench(folder.path(), &["--results", &word(&results)]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let verdicts: Vec<String> = kernels(&ran).iter().map(|kernel| format!("{} {}", kernel["kernel"], kernel["verdict"])).collect();
    assert_eq!(verdicts, ["\"first\" \"right\"", "\"second\" \"lost\"", "\"third\" \"right\""], "{ran}");
    assert!(ran.stderr.contains("proving and timing 1 kernels"), "{ran}");
    // Figures of another card are not taken for this one's.
    let other = fs::read_to_string(&results).unwrap().lines().next().unwrap().to_string();
    let mut other: Value = serde_json::from_str(&other).unwrap();
    other["adapter"] = "another card".into();
    fs::write(&results, format!("{other}\n")).unwrap();
    let ran = bench(folder.path(), &["--results", &word(&results)]);
    assert!(ran.code == Some(1) && ran.stderr.contains("another card"), "{ran}");
}
