//! Designs x shapes x directions, as lines of a folder of kernels.

use super::expected::expected_sums;
use nin_wgpu::gpu::tuner::folder::{DispatchLine, KernelLine, LIST, OperandName};
use nin_wgpu::graph::{Lowering, Operand};
use nin_wgpu::kernels::{Choices, Conv2dParams, DeviceClass, Dispatch, MatrixUnits, Problem, Target, conv2d_reduce, workgroups_for};
use nin_wgpu::ops::conv2d::Task;
use nin_wgpu::shape::Element;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[path = "../../build/expand.rs"]
#[allow(dead_code, reason = "the build script expands in another way")]
mod expand;

/// A convolution: images, input, output channels, and kernel, stride and padding of both axes.
type Shape = (&'static str, usize, [usize; 3], usize, [usize; 3]);

/// Those of `nin` at batch 128 that cost most, and two of `nin-cifar`.
const FULL: [Shape; 8] = [
    ("nin 5x5", 128, [96, 26, 26], 256, [5, 1, 2]),
    ("nin 3x3", 128, [256, 12, 12], 384, [3, 1, 1]),
    ("nin 1x1 96", 128, [96, 54, 54], 96, [1, 1, 0]),
    ("nin 1x1 256", 128, [256, 26, 26], 256, [1, 1, 0]),
    ("nin 1x1 384", 128, [384, 12, 12], 384, [1, 1, 0]),
    ("nin 11x11", 128, [1, 224, 224], 96, [11, 4, 0]),
    ("nin-cifar 5x5", 128, [96, 16, 16], 192, [5, 1, 2]),
    ("nin-cifar 1x1", 128, [192, 32, 32], 160, [1, 1, 0]),
];

/// Every kind of edge: tiles that are not filled, several tiles either way, maps narrower than a stage is deep, padding.
const TINY: [Shape; 5] = [
    ("5x5", 2, [32, 9, 7], 64, [5, 1, 2]),
    ("3x3", 1, [64, 6, 5], 96, [3, 1, 1]),
    ("1x1", 3, [64, 9, 10], 288, [1, 1, 0]),
    ("3x3 strided", 2, [32, 9, 8], 48, [3, 2, 1]),
    ("11x11", 2, [1, 23, 27], 32, [11, 4, 0]),
];

/// Which of its three products a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Input,
    Weight,
}

impl Way {
    const ALL: [Way; 3] = [Way::Forward, Way::Input, Way::Weight];

    fn op(self) -> &'static str {
        match self {
            Way::Forward => "conv2d",
            Way::Input => "conv2d_backward_input",
            Way::Weight => "conv2d_backward_weight",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Way::Forward => "forward",
            Way::Input => "input gradient",
            Way::Weight => "weight gradient",
        }
    }
}

/// A design: a template and the numbers that it is expanded with.
#[derive(Clone, Debug)]
struct Design {
    name: String,
    element: Element,
    /// `gemm` or `matrix`: the templates are called that with `_pixels` and `_weights` behind it.
    family: &'static str,
    numbers: Vec<(&'static str, i64)>,
    ways: &'static [Way],
    /// Times as many workgroups as run at once, in the weight gradient.
    waves: u32,
    /// Whether partial sums of the weight gradient are added up in several lanes.
    spreads_sums: bool,
    /// Only for the problem that costs most.
    only_first: bool,
}

impl Design {
    fn number(&self, name: &str) -> i64 {
        self.numbers.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
    }

    /// Results of a workgroup.
    fn tile(&self) -> [u32; 2] {
        let of = |names: [&str; 2], unit: i64| (unit * self.number(names[0]) * self.number(names[1])) as u32;
        match self.family {
            "gemm" => [of(["THREAD_ROWS", "ROW_QUADS"], 4), of(["THREAD_COLUMNS", "COLUMN_QUADS"], 4)],
            _ => [of(["WARP_ROWS", "PATCH_ROWS"], 16), of(["WARP_COLUMNS", "PATCH_COLUMNS"], 16)],
        }
    }

    /// The same with another value of one of its numbers.
    fn with(&self, name: &str, value: i64) -> Self {
        let mut design = self.clone();
        design.numbers.iter_mut().filter(|(known, _)| *known == name).for_each(|(_, number)| *number = value);
        design
    }

    fn named(self, name: String) -> Self {
        Design { name, ..self }
    }

    fn for_ways(self, ways: &'static [Way]) -> Self {
        Design { ways, ..self }
    }

    fn is_probe(&self) -> bool {
        self.number("PROBE") != 0
    }

    /// What it binds of a template's operands: a probe that loads nothing leaves the first two out.
    fn bound(&self, operands: Vec<Operand>) -> Vec<OperandName> {
        let unread = if self.number("PROBE") == 1 { 2 } else { 0 };
        operands.into_iter().skip(unread).map(OperandName).collect()
    }

    /// As many subgroups as have room to bring their results into workgroup memory at a time; `None` where not even one has.
    fn with_patch_warps(&self, way: Way) -> Option<Self> {
        if self.family != "matrix" {
            return Some(self.clone());
        }
        let [rows, columns] = self.tile().map(i64::from);
        let depth = self.number("DEPTH");
        // As in matrix_tile.wgsl, in quads.
        let (by_steps, by_rows, by_columns) = (depth / 4 + 2, rows / 4 + 2, columns / 4 + 2);
        let (left, right) = match way {
            Way::Forward => (rows * by_steps, (1 - self.number("RIGHT_DIRECT")) * depth * by_columns),
            Way::Input => (rows * by_steps, columns * by_steps),
            Way::Weight => (depth * by_rows, depth * by_columns),
        };
        let staged = self.number("BUFFERS") * (left + right) * 8;
        if self.number("COOPERATIVE") == 0 {
            return (staged <= LEAST_WORKGROUP_BYTES).then(|| self.clone());
        }
        let mut warps = self.number("WARP_ROWS") * self.number("WARP_COLUMNS");
        while warps > 0 && staged + warps * PATCH_BYTES > MOST_WORKGROUP_BYTES {
            warps /= 2;
        }
        (warps > 0).then(|| self.with("PATCH_WARPS", warps))
    }

    /// Whether it computes the problem: its stages are whole, and what it moves at a time too.
    fn fits(&self, problem: &Problem, way: Way) -> bool {
        let depth = self.number("DEPTH") as usize;
        let grain = if self.family == "gemm" { 4 } else { 16 };
        let whole = |channels: usize| channels.is_multiple_of(grain);
        let summed = match way {
            Way::Forward => problem.input[0],
            Way::Input => problem.outputs,
            Way::Weight => depth,
        };
        let strides = way != Way::Input || problem.stride == [1, 1];
        self.ways.contains(&way) && whole(problem.input[0]) && whole(problem.outputs) && summed.is_multiple_of(depth) && strides
    }
}

/// Workgroup memory of the CPU drivers that emulated kernels run on, and of the GPUs that the others are for.
const LEAST_WORKGROUP_BYTES: i64 = 32 << 10;
const MOST_WORKGROUP_BYTES: i64 = 48 << 10;

/// Elements of a workgroup of `reduce_partials_spread` (`ELEMENTS` in conv2d_reduce.wgsl).
const SPREAD_ELEMENTS: usize = 32;

/// Bytes of a 16 x 16 result.
const PATCH_BYTES: i64 = 1024;

/// Tiles in registers: invocations and quads of each of them, depth, buffers, lane map.
fn gemm([tr, tc, rq, cq]: [i64; 4], depth: i64, buffers: i64, lanes: i64) -> Design {
    let numbers = vec![
        ("THREAD_ROWS", tr),
        ("THREAD_COLUMNS", tc),
        ("ROW_QUADS", rq),
        ("COLUMN_QUADS", cq),
        ("DEPTH", depth),
        ("BUFFERS", buffers),
        ("LANES", lanes),
        ("PROBE", 0),
    ];
    let (rows, columns) = (4 * tr * rq, 4 * tc * cq);
    let name = format!("gemm {rows}x{columns}x{depth}, buffers {buffers}, lanes {}", if lanes == 1 { "4x8" } else { "in line" });
    Design { name, element: Element::F32, family: "gemm", numbers, ways: &Way::ALL, waves: 2, spreads_sums: true, only_first: false }
}

/// Tiles on matrix units: subgroups and matrices of each of them, depth, buffers, halves moved at a time.
fn matrix([wr, wc, pr, pc]: [i64; 4], depth: i64, buffers: i64, chunk: i64) -> Design {
    let numbers = vec![
        ("COOPERATIVE", 1),
        ("WARP_ROWS", wr),
        ("WARP_COLUMNS", wc),
        ("PATCH_ROWS", pr),
        ("PATCH_COLUMNS", pc),
        ("DEPTH", depth),
        ("BUFFERS", buffers),
        ("CHUNK", chunk),
        ("PATCH_WARPS", 0),
        ("RIGHT_DIRECT", 0),
        ("RESULTS_DIRECT", 0),
        ("WEIGHT_STEPS", 0),
        ("WEIGHT_ROWS", 0),
        ("PROBE", 0),
    ];
    let (rows, columns) = (16 * wr * pr, 16 * wc * pc);
    let name = format!("matrix {rows}x{columns}x{depth} by {}x{}, buffers {buffers}, {} bytes", 16 * pr, 16 * pc, 2 * chunk);
    Design { name, element: Element::F16, family: "matrix", numbers, ways: &Way::ALL, waves: 2, spreads_sums: true, only_first: false }
}

fn probes(design: &Design) -> impl Iterator<Item = Design> {
    let probe = |(value, what)| {
        let name = format!("{}: {what}", design.name);
        Design { only_first: true, ..design.with("PROBE", value).named(name) }
    };
    [(1, "products only"), (2, "staging only"), (3, "loading only")].map(probe).into_iter()
}

/// What is compared. One thing at a time beside a middle, then what should be good together.
fn designs() -> Vec<Design> {
    const PIXELS: &[Way] = &[Way::Forward, Way::Input];
    let large = [16, 16, 2, 2];
    let middle = gemm(large, 16, 1, 1);
    let mut all = vec![
        gemm(large, 16, 1, 0),
        middle.clone(),
        gemm(large, 16, 2, 1),
        gemm(large, 8, 1, 1),
        gemm(large, 8, 2, 1),
        gemm(large, 32, 1, 1),
        gemm([16, 8, 2, 2], 16, 1, 1),
        gemm([16, 8, 2, 2], 16, 2, 1),
        gemm([16, 8, 2, 3], 16, 1, 1),
        gemm([8, 8, 2, 2], 16, 1, 1),
        gemm([8, 8, 2, 2], 16, 2, 1),
        gemm([16, 16, 4, 2], 8, 1, 1),
    ];
    all.extend(probes(&middle));
    let square = [2, 2, 4, 4];
    let wide = matrix([2, 4, 4, 4], 32, 1, 8);
    let direct = |design: Design| {
        let name = format!("{}, weights not staged", design.name);
        design.with("RIGHT_DIRECT", 1).named(name).for_ways(&[Way::Forward])
    };
    let straight = |design: Design| {
        let name = format!("{}, results straight", design.name);
        design.with("RESULTS_DIRECT", 1).named(name).for_ways(&[Way::Weight])
    };
    all.extend([
        matrix([2, 4, 4, 2], 32, 1, 4),
        matrix([2, 4, 4, 2], 32, 1, 8),
        matrix(square, 32, 1, 8),
        matrix(square, 16, 2, 8),
        wide.clone(),
        matrix([4, 2, 4, 4], 32, 1, 8),
        matrix([2, 4, 4, 4], 16, 2, 8).for_ways(&[Way::Forward, Way::Weight]),
        matrix([2, 2, 4, 3], 32, 1, 8),
        matrix([2, 2, 2, 2], 32, 1, 8),
        matrix([4, 4, 2, 2], 32, 1, 8).for_ways(PIXELS),
        direct(wide.clone()),
        direct(matrix([2, 4, 4, 2], 32, 2, 8)),
        straight(wide.clone()),
        straight(matrix(square, 32, 1, 8)),
    ]);
    all.extend(probes(&wide));
    // Splits at multiples of what runs at once.
    for base in [middle, straight(wide)] {
        let name = format!("{}, sums in one lane", base.name);
        all.push(Design { spreads_sums: false, ..base.clone().named(name).for_ways(&[Way::Weight]) });
        for waves in [1, 3, 4, 8] {
            let name = format!("{}, waves {waves}", base.name);
            all.push(Design { waves, ..base.clone().named(name).for_ways(&[Way::Weight]) });
        }
    }
    all
}

/// Writes the folder and returns how many kernels it has.
pub fn write(folder: &Path, tiny: bool, cores: u32) -> Result<usize, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let mut matrix = Matrix { cores: if tiny { 6 } else { cores }, lines: Vec::new(), shaders: BTreeMap::new(), sums: BTreeMap::new() };
    let shapes: &[Shape] = if tiny { &TINY } else { &FULL };
    let mut designs = designs();
    if tiny {
        let emulated = |design: &Design| design.with("COOPERATIVE", 0).named(format!("{}, emulated", design.name));
        let on_units: Vec<Design> = designs.iter().filter(|design| design.family == "matrix").map(emulated).collect();
        designs.extend(on_units);
    }
    for (index, shape) in shapes.iter().enumerate() {
        for element in [Element::F32, Element::F16] {
            for way in Way::ALL {
                let problem = problem(shape, way, element);
                if problem.input[0] == 1 && way == Way::Input {
                    continue;
                }
                matrix.add_product(shape.0, &problem, tiny)?;
                let fitting = designs.iter().filter(|design| design.element == element && design.fits(&problem, way));
                for design in fitting.filter(|design| index == 0 || !design.only_first).filter_map(|design| design.with_patch_warps(way)) {
                    matrix.add(shape.0, &design, &problem, way)?;
                }
                if problem.input[0] == 1 && element == Element::F16 {
                    let whole = |design: &&Design| design.number("DEPTH") == 32 && design.number("RESULTS_DIRECT") == 0;
                    let unfolding = designs.iter().filter(|design| {
                        design.family == "matrix"
                            && !design.is_probe()
                            && design.waves == 2
                            && design.spreads_sums
                            && design.ways.contains(&way)
                    });
                    // Matrices that are stored straight would write behind the filter's last row.
                    let unfolding = unfolding.filter(whole);
                    for design in unfolding.filter_map(|design| design.with_patch_warps(way)) {
                        matrix.add_unfolded(shape.0, &design, &problem, way)?;
                    }
                }
            }
        }
    }
    for (name, source) in &matrix.shaders {
        let path = folder.join(name);
        fs::write(&path, source).map_err(|error| failed(&path, error))?;
    }
    let mut list = String::new();
    for line in &matrix.lines {
        list.push_str(&serde_json::to_string(line).map_err(|error| error.to_string())?);
        list.push('\n');
    }
    let path = folder.join(LIST);
    fs::write(&path, list).map_err(|error| failed(&path, error))?;
    Ok(matrix.lines.len())
}

fn problem((_, batch, input, outputs, [kernel, stride, padding]): &Shape, way: Way, element: Element) -> Problem {
    Problem {
        op: way.op().into(),
        batch: *batch,
        input: *input,
        outputs: *outputs,
        kernel: [*kernel; 2],
        stride: [*stride; 2],
        padding: [*padding; 2],
        element,
    }
}

/// Whole numbers whose sums are exact, and in half precision held with room to spare.
fn radius(task: &Task, element: Element) -> u32 {
    if element == Element::F16 { 2 } else { task.whole_radius() }
}

struct Matrix {
    cores: u32,
    lines: Vec<KernelLine>,
    shaders: BTreeMap<String, String>,
    sums: BTreeMap<Problem, Vec<u32>>,
}

impl Matrix {
    fn line(&mut self, shape: &str, design: &str, problem: &Problem, is_probe: bool) -> Result<KernelLine, String> {
        let task = Task::new(problem).ok_or_else(|| format!("{problem} cannot be computed"))?;
        let radius = radius(&task, problem.element);
        let expected =
            if is_probe { Vec::new() } else { self.sums.entry(problem.clone()).or_insert_with(|| expected_sums(problem, radius)).clone() };
        let way = Way::ALL.into_iter().find(|way| way.op() == problem.op).map_or("", Way::name);
        let kernel = format!("{shape}, {way}, {}: {design}", problem.element.name());
        Ok(KernelLine {
            kernel,
            design: design.into(),
            problem: problem.clone(),
            radius,
            scratch: Vec::new(),
            dispatches: Vec::new(),
            expected,
        })
    }

    /// The program's own kernels: what the others are measured against.
    fn add_product(&mut self, shape: &str, problem: &Problem, tiny: bool) -> Result<(), String> {
        let units = if tiny { MatrixUnits::Emulated } else { MatrixUnits::Sixteen };
        let base = Target {
            little_work: 0,
            matrix_units: units,
            cores: Some(self.cores),
            max_binding_bytes: 1 << 31,
            max_buffer_bytes: 1 << 31,
            ..Target::baseline(DeviceClass::Discrete)
        };
        let task = Task::new(problem).ok_or_else(|| format!("{problem} cannot be computed"))?;
        let (inputs, outputs): (Vec<_>, Vec<_>) = (task.inputs.iter().collect(), task.outputs.iter().collect());
        for choice in task.candidates(&base, false) {
            let choices = Arc::new(Choices([(problem.clone(), choice.clone())].into()));
            let target = Target { choices, ..base.clone() };
            let is_read = vec![true; outputs.len()];
            let lowered =
                task.op.lower(&Lowering { target: &target, inputs: inputs.clone(), outputs: outputs.clone(), is_read, in_place: false });
            // Some kernels exist for one way of storing only.
            let Ok(lowered) = lowered.for_facts(&inputs, &outputs) else { continue };
            let mut line = self.line(shape, &format!("product {choice}"), problem, false)?;
            line.scratch = lowered.scratch.clone();
            line.dispatches = lowered.dispatches.iter().map(|dispatch| self.of_product(dispatch)).collect();
            self.lines.push(line);
        }
        Ok(())
    }

    fn of_product(&mut self, dispatch: &Dispatch<Operand>) -> DispatchLine {
        let shader = format!("product-{}.wgsl", dispatch.kernel.module);
        self.shaders.entry(shader.clone()).or_insert_with(|| dispatch.kernel.source.to_string());
        DispatchLine {
            shader,
            entry: dispatch.kernel.entry.into(),
            params: bytemuck::pod_collect_to_vec(&dispatch.params),
            operands: dispatch.buffers.iter().copied().map(OperandName).collect(),
            workgroups: dispatch.workgroups,
        }
    }

    fn add(&mut self, shape: &str, design: &Design, problem: &Problem, way: Way) -> Result<(), String> {
        let mut line = self.line(shape, &design.name, problem, design.is_probe())?;
        self.push_dispatches(&mut line, design, params(problem), way, Operand::Input(0), 0)?;
        self.lines.push(line);
        Ok(())
    }

    /// A narrow input, unfolded into as many channels as matrix units want, and then a convolution of 1 x 1.
    fn add_unfolded(&mut self, shape: &str, design: &Design, problem: &Problem, way: Way) -> Result<(), String> {
        let mut line = self.line(shape, &format!("unfolded, then {}", design.name), problem, false)?;
        let params = params(problem);
        let steps = params.kernel_h * params.kernel_w * params.in_c;
        let unfolded = steps.next_multiple_of(32);
        let pixels = params.batch * params.out_h * params.out_w;
        let numbers = [("STEPS", i64::from(unfolded)), ("CHANNELS", i64::from(params.in_c)), ("KERNEL_WIDTH", i64::from(params.kernel_w))];
        let shader = self.expanded("im2col.wgsl", &numbers)?;
        line.scratch.push(u64::from(pixels) * u64::from(unfolded) * 2);
        line.dispatches.push(DispatchLine {
            shader,
            entry: "unfold".into(),
            params: words(&params),
            operands: [Operand::Input(0), Operand::Scratch(0)].map(OperandName).into(),
            workgroups: (u64::from(pixels) * u64::from(unfolded) / 8).div_ceil(64),
        });
        let pointwise = Conv2dParams {
            in_h: params.out_h,
            in_w: params.out_w,
            in_c: unfolded,
            kernel_h: 1,
            kernel_w: 1,
            stride_h: 1,
            stride_w: 1,
            pad_h: 0,
            pad_w: 0,
            ..params
        };
        let design = design.with("WEIGHT_STEPS", steps.into()).with("WEIGHT_ROWS", steps.into());
        self.push_dispatches(&mut line, &design, pointwise, way, Operand::Scratch(0), 1)?;
        self.lines.push(line);
        Ok(())
    }

    /// Adds what a design runs; `source` is what it reads as x or, in the input gradient, as dy. In the weight gradient partial sums
    /// take scratch buffer `partials`.
    fn push_dispatches(
        &mut self,
        line: &mut KernelLine,
        design: &Design,
        params: Conv2dParams,
        way: Way,
        source: Operand,
        partials: usize,
    ) -> Result<(), String> {
        let [tile_rows, tile_columns] = design.tile();
        let tiles = |rows: u32, columns: u32| rows.div_ceil(tile_rows) * columns.div_ceil(tile_columns);
        let numbers: Vec<(&str, i64)> =
            design.numbers.iter().copied().chain((way != Way::Weight).then_some(("INPUT", i64::from(way == Way::Input)))).collect();
        let template = format!("{}_{}.wgsl", design.family, if way == Way::Weight { "weights" } else { "pixels" });
        let shader = self.expanded(&template, &numbers)?;
        if way == Way::Weight {
            let rows = params.kernel_h * params.kernel_w * params.in_c;
            let pixels = params.batch * params.out_h * params.out_w;
            let tiles = tiles(rows, params.out_c);
            let splits = (self.cores * design.waves / tiles).clamp(1, pixels.div_ceil(64));
            let per_split = pixels.div_ceil(splits).next_multiple_of(design.number("DEPTH") as u32);
            let splits = pixels.div_ceil(per_split);
            let params = Conv2dParams { splits, per_split, ..params };
            let stored_rows = match design.number("WEIGHT_ROWS") {
                0 => rows,
                rows => rows as u32,
            };
            let elements = (stored_rows as usize + 1) * params.out_c as usize;
            line.scratch.push(elements as u64 * u64::from(splits) * 4);
            line.dispatches.push(DispatchLine {
                shader,
                entry: "weights".into(),
                params: words(&params),
                operands: design.bound(vec![source, Operand::Input(1), Operand::Scratch(partials)]),
                workgroups: u64::from(tiles) * u64::from(splits),
            });
            let of_filter = Conv2dParams { kernel_h: stored_rows, kernel_w: 1, in_c: 1, ..params };
            let operands = (Operand::Output(0), Operand::Output(1), Operand::Scratch(partials));
            let reduce = if design.spreads_sums {
                let groups = elements.div_ceil(SPREAD_ELEMENTS) as u64;
                conv2d_reduce::reduce_partials_spread(of_filter, operands.0, operands.1, operands.2, groups)
            } else {
                let groups = workgroups_for(&conv2d_reduce::REDUCE_PARTIALS, elements);
                conv2d_reduce::reduce_partials(of_filter, operands.0, operands.1, operands.2, groups)
            };
            line.dispatches.push(self.of_product(&reduce));
            return Ok(());
        }
        let (rows, columns, operands) = match way {
            Way::Input => (params.batch * params.in_h * params.in_w, params.in_c, vec![source, Operand::Input(1), Operand::Output(0)]),
            _ => {
                let operands = vec![source, Operand::Input(1), Operand::Input(2), Operand::Output(0)];
                (params.batch * params.out_h * params.out_w, params.out_c, operands)
            }
        };
        line.dispatches.push(DispatchLine {
            shader,
            entry: "pixels".into(),
            params: words(&params),
            operands: design.bound(operands),
            workgroups: tiles(rows, columns).into(),
        });
        Ok(())
    }

    /// Expands a template with these numbers, once, and returns its file's name.
    fn expanded(&mut self, template: &str, numbers: &[(&str, i64)]) -> Result<String, String> {
        let values: Vec<String> = numbers.iter().map(|(_, value)| value.to_string()).collect();
        let file = format!("{}-{}.wgsl", template.trim_end_matches(".wgsl"), values.join("-"));
        if !self.shaders.contains_key(&file) {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let templates = root.join("benches/kernels");
            let names = numbers.iter().map(|(name, value)| (name.to_string(), *value)).collect();
            let expanded = expand::expand_with(&[&templates, &root.join("shaders")], &templates.join(template), &names)?;
            self.shaders.insert(file.clone(), expanded.single);
        }
        Ok(file)
    }
}

/// The constants of a convolution that is not split.
fn params(problem: &Problem) -> Conv2dParams {
    let Problem { batch, input: [in_c, in_h, in_w], outputs, kernel, stride, padding, .. } = *problem;
    let out = |size: usize, axis: usize| ((size + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1) as u32;
    Conv2dParams {
        batch: batch as u32,
        in_h: in_h as u32,
        in_w: in_w as u32,
        in_c: in_c as u32,
        out_h: out(in_h, 0),
        out_w: out(in_w, 1),
        out_c: outputs as u32,
        kernel_h: kernel[0] as u32,
        kernel_w: kernel[1] as u32,
        stride_h: stride[0] as u32,
        stride_w: stride[1] as u32,
        pad_h: padding[0] as u32,
        pad_w: padding[1] as u32,
        splits: 1,
        ..Conv2dParams::default()
    }
}

fn words(params: &Conv2dParams) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytemuck::bytes_of(params))
}
