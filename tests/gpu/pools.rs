//! Pools over the windows of `tests/goldens/pool_shapes.txt`: the output sizes that PyTorch computes, and forward and
//! backward kernels against the reference.

use crate::kernels::{CLASSES, run_all};
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::ops::{avg_pool2d_cases, max_pool2d_cases};
use nin_wgpu::shape::Window;

const SHAPES: &str = include_str!("../goldens/pool_shapes.txt");
const SHAPES_AT_LEAST: usize = 400;
const SHAPES_PER_TRIAL: usize = 120;
/// Images and channels, in turn: below a quad, whole quads, and part of one.
const IMAGES_AND_CHANNELS: [[usize; 2]; 4] = [[1, 4], [2, 3], [1, 5], [3, 1]];

struct PoolShape {
    name: String,
    input: [usize; 2],
    window: Window,
    output: [usize; 2],
}

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let shapes = match shapes() {
        Ok(shapes) => shapes,
        Err(error) => return vec![Trial::test("pools::output_sizes", move || Err(error.into()))],
    };
    let mut groups = Vec::new();
    for (number, group) in shapes.chunks(SHAPES_PER_TRIAL).enumerate() {
        let first = number * SHAPES_PER_TRIAL;
        let inputs = group.iter().zip(IMAGES_AND_CHANNELS.into_iter().cycle());
        let inputs: Vec<_> = inputs.map(|(s, [n, c])| (s.window, [n, c, s.input[0], s.input[1]])).collect();
        groups.push((format!("{first:03}..{:03}", first + group.len()), inputs));
    }
    let mut trials = vec![Trial::test("pools::output_sizes", move || output_sizes(&shapes).map_err(Into::into))];
    // The classes have the same pool kernels today; nothing here relies on it.
    for (class, label) in CLASSES {
        for (range, inputs) in groups.clone() {
            let name = format!("pools::{range}::{label}");
            trials.push(trial(device, name, move |gpu| {
                let cases = inputs.iter().flat_map(|(window, input)| {
                    let (max, avg) = (max_pool2d_cases(*window, *input), avg_pool2d_cases(*window, *input));
                    assert!(max.len() == 3 && avg.len() == 3, "cases of {window}");
                    max.into_iter().chain(avg)
                });
                run_all(gpu, class, cases.collect::<Vec<_>>())
            }));
        }
    }
    trials
}

/// Parses `ih iw kh kw sh sw ph pw ceil oh ow name`.
fn shapes() -> Result<Vec<PoolShape>, String> {
    let mut shapes = Vec::new();
    for line in SHAPES.lines().filter(|line| !line.starts_with('#')) {
        let (numbers, name) = line.rsplit_once(' ').ok_or_else(|| format!("{line}: no name"))?;
        let numbers: Result<Vec<usize>, _> = numbers.split(' ').map(str::parse).collect();
        let Ok(&[h, w, kh, kw, sh, sw, ph, pw, ceil, oh, ow]) = numbers.as_deref() else { return Err(format!("{line}: not a window")) };
        let window = Window { kernel: [kh, kw], stride: [sh, sw], padding: [ph, pw], ceil_mode: ceil == 1 };
        shapes.push(PoolShape { name: name.to_string(), input: [h, w], window, output: [oh, ow] });
    }
    Ok(shapes)
}

fn output_sizes(shapes: &[PoolShape]) -> Result<(), String> {
    if shapes.len() < SHAPES_AT_LEAST {
        return Err(format!("{} shapes, expected {SHAPES_AT_LEAST}", shapes.len()));
    }
    let wrong = shapes.iter().filter(|s| s.window.output(s.input) != Ok(s.output));
    let wrong: Vec<String> = wrong.map(|s| format!("{}: {:?}, PyTorch {:?}", s.name, s.window.output(s.input), s.output)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"))) }
}
