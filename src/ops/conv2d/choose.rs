//! From a convolution and a device to the choice of kernels: what was measured where that applies, else the rules.
//! Also the choices that are worth measuring.

use super::variant::{Results, Variant, is_little};
use crate::kernels::{Choice, Conv2dParams, DeviceClass, Problem, Target};
use crate::shape::Element;

/// What one core of a CPU device is taken to keep in its own cache: half of the usual megabyte.
pub(super) const CACHE_BYTES: u64 = 512 << 10;

/// Most memory for partial sums of a weight gradient that is split for the cache's sake.
const MOST_PARTIALS_BYTES: u64 = 6 << 20;

/// A split of the weight gradient covers at least this many pixels, so that storing its partial sums stays cheap
/// beside computing them.
const MIN_PIXELS_PER_SPLIT: u32 = 64;

/// A split of forward's or the input gradient's reduction covers at least this many steps, for the same reason.
const MIN_STEPS_PER_SPLIT: u32 = 128;

/// Steps of the reduction that the GPUs' kernels stage at a time: a split is a multiple of it.
const STEPS_STAGED: u32 = 16;

/// Share of the workgroups of whole waves, one on every core, that a split should come to.
const WAVES_FILLED: f64 = 0.9;

/// What a node computes of its convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// y.
    Forward,
    /// dx.
    BackwardInput,
    /// dweight and dbias.
    BackwardWeight,
}

/// A convolution on a device: all that the choice of its kernels depends on.
pub(super) struct Selector<'a> {
    pub target: &'a Target,
    pub params: Conv2dParams,
    pub way: Way,
    /// Words of the result, and so of one part's partial sums.
    pub words: u64,
    /// Multiply-adds.
    pub macs: u64,
    /// How the tensors that are multiplied are stored.
    pub element: Element,
    /// Bytes of textures that hold the two tensors that are multiplied.
    pub operand_bytes: [u64; 2],
}

/// A choice that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub variant: Variant,
    /// Parts of the reduction, at least 1.
    pub splits: u32,
    /// Steps of each part.
    pub per_split: u32,
    pub channels_innermost: bool,
}

impl From<Selected> for Choice {
    fn from(selected: Selected) -> Choice {
        let Selected { variant, splits, channels_innermost, .. } = selected;
        Choice { variant: variant.name().to_string(), splits, channels_innermost }
    }
}

impl Selector<'_> {
    /// What runs: the choice that was measured for `problem`, unless there is none, or it does not apply to the device,
    /// or there is too little work to pay for compiling what only runs fast.
    pub fn select(&self, problem: impl FnOnce() -> Problem) -> Selected {
        let choices = &self.target.choices;
        // Where a driver cannot compile large kernels there is nothing but small ones to choose from.
        let weighs_compiling = self.target.class == DeviceClass::Cpu && self.target.little_work != u64::MAX;
        if choices.is_empty() || (weighs_compiling && is_little(self.target, &self.params)) {
            return self.by_rules();
        }
        choices.get(&problem()).and_then(|choice| self.apply(choice)).unwrap_or_else(|| self.by_rules())
    }

    /// The choices worth measuring, that of the rules first, none twice. Few of them: each family of kernels but stopgaps
    /// with the rules' splits, and half and twice as many splits for the rules' family, or where the number of cores is known
    /// those that come to whole waves. All of them: every family in every order with several splits.
    pub fn candidates(&self, all: bool) -> Vec<Selected> {
        let rules = self.by_rules();
        let mut found = vec![rules];
        for variant in self.variants().into_iter().filter(|variant| all || *variant == rules.variant || !variant.is_stopgap()) {
            let by_rules = self.splits_by_rules(variant);
            let is_rules = variant == rules.variant;
            let factors: &[(u32, u32)] = match (all, is_rules, self.target.cores) {
                (true, ..) => &[(1, 1), (1, 2), (2, 1), (1, 4), (4, 1), (8, 1)],
                (false, true, None) => &[(1, 1), (1, 2), (2, 1)],
                (false, ..) => &[(1, 1)],
            };
            let waves: &[u64] = match (all, is_rules) {
                (true, _) => &[1, 2, 4, 8],
                (false, true) => &[1, 2, 4],
                (false, false) => &[],
            };
            let tiles = self.tiles(variant);
            let by_waves = self.target.cores.map(|cores| waves.iter().map(move |waves| splits_in(waves * u64::from(cores), tiles)));
            let splits = factors.iter().map(|(times, over)| by_rules * times / over).chain(by_waves.into_iter().flatten());
            let orders = if all && variant.has_orders() && self.way != Way::BackwardWeight {
                vec![rules.channels_innermost, !rules.channels_innermost]
            } else {
                vec![rules.channels_innermost]
            };
            for splits in splits {
                let splits = splits.clamp(1, self.most_splits(variant));
                found.extend(orders.iter().map(|order| self.selected(variant, splits, *order)));
            }
            if all {
                found.push(self.selected(variant, 1, rules.channels_innermost));
            }
        }
        let mut distinct: Vec<Selected> = Vec::new();
        for selected in found {
            if !distinct.contains(&selected) {
                distinct.push(selected);
            }
        }
        distinct
    }

    fn by_rules(&self) -> Selected {
        let variant = Variant::choose(self.target, &self.params, self.element, &self.results(), self.steps());
        let variant = if self.way == Way::BackwardInput { variant.for_backward_input() } else { variant };
        let textured = variant.through_textures().filter(|(_, loads)| self.textures_pay(*loads));
        let variant = textured.map_or(variant, |(textured, _)| textured);
        self.selected(variant, self.splits_by_rules(variant), self.params.channels_innermost != 0)
    }

    /// A choice from elsewhere, where it applies.
    fn apply(&self, choice: &Choice) -> Option<Selected> {
        let variant = Variant::named(&choice.variant).filter(|variant| self.variants().contains(variant))?;
        let splits = Some(choice.splits).filter(|splits| (1..=self.most_splits(variant)).contains(splits))?;
        Some(self.selected(variant, splits, choice.channels_innermost))
    }

    fn variants(&self) -> Vec<Variant> {
        let mut variants = Variant::possible(self.target, &self.params, self.element);
        variants.retain(|variant| !variant.reads_textures() || self.fits_textures());
        if self.way == Way::BackwardInput {
            variants.iter_mut().for_each(|variant| *variant = variant.for_backward_input());
            variants.dedup();
        }
        variants
    }

    fn selected(&self, variant: Variant, splits: u32, channels_innermost: bool) -> Selected {
        let per_split = match self.way {
            Way::Forward | Way::BackwardInput => self.steps().div_ceil(splits).next_multiple_of(STEPS_STAGED),
            Way::BackwardWeight => self.steps().div_ceil(splits).max(1),
        };
        Selected { variant, splits: self.steps().div_ceil(per_split).max(1), per_split, channels_innermost }
    }

    fn results(&self) -> Results {
        let Conv2dParams { batch, in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w, .. } = self.params;
        match self.way {
            Way::Forward => Results::Pixels { rows: batch * out_h * out_w, channels: out_c },
            Way::BackwardInput => Results::Pixels { rows: batch * in_h * in_w, channels: in_c },
            Way::BackwardWeight => Results::Weights { rows: kernel_h * kernel_w * in_c, channels: out_c },
        }
    }

    /// Whether the device's textures hold both operands.
    fn fits_textures(&self) -> bool {
        let most = self.target.max_texture_bytes.min(self.target.max_buffer_bytes);
        self.operand_bytes.iter().all(|bytes| *bytes <= most)
    }

    /// Whether values are loaded so often that bringing them into textures costs less than it saves, where one lane loads
    /// `loads` of them for 1024 multiply-adds.
    fn textures_pay(&self, loads: u64) -> bool {
        let quads = self.operand_bytes.iter().sum::<u64>() / 16;
        self.fits_textures() && self.macs / 1024 * loads >= quads.saturating_mul(self.target.texture_reuse)
    }

    /// Length of the reduction: in pixels for the weight gradient.
    fn steps(&self) -> u32 {
        let Conv2dParams { batch, in_c, out_h, out_w, out_c, kernel_h, kernel_w, .. } = self.params;
        match self.way {
            Way::Forward => kernel_h * kernel_w * in_c,
            Way::BackwardInput => kernel_h * kernel_w * out_c,
            Way::BackwardWeight => batch * out_h * out_w,
        }
    }

    /// Forward and the input gradient are split where their tiles leave most of the device idle; the weight gradient
    /// also where the pixels of a part should stay in the cache, because all tiles of a part read the same ones.
    fn splits_by_rules(&self, variant: Variant) -> u32 {
        let filling = u64::from(self.target.filling_workgroups);
        let tiles = self.tiles(variant);
        let wanted = match self.way {
            Way::BackwardWeight => {
                let to_fill = (filling * u64::from(variant.tiling().per_workgroup)).div_ceil(tiles);
                to_fill.max(self.splits_to_cache().into())
            }
            Way::Forward | Way::BackwardInput => filling / tiles,
        };
        let most = self.most_splits(variant);
        match self.target.cores {
            Some(cores) if wanted > 1 && self.target.class != DeviceClass::Cpu => splits_in_waves(filling, cores.into(), tiles, most),
            _ => wanted.clamp(1, most.into()) as u32,
        }
    }

    /// Tiles of a part of the weight gradient; workgroups of a part of the others.
    fn tiles(&self, variant: Variant) -> u64 {
        let tiles = match (self.way, self.results()) {
            (Way::BackwardWeight, Results::Weights { rows, channels }) => {
                let tiling = variant.tiling();
                u64::from(rows.div_ceil(tiling.rows)) * u64::from(channels.div_ceil(tiling.channels))
            }
            (_, Results::Pixels { rows, channels } | Results::Weights { rows, channels }) => variant.workgroups(rows, channels),
        };
        tiles.max(1)
    }

    /// Parts of the weight gradient's pixels that each fit a core's cache.
    fn splits_to_cache(&self) -> u32 {
        match self.target.class {
            DeviceClass::Cpu => {
                let Conv2dParams { in_c, stride_h, stride_w, out_c, .. } = self.params;
                let bytes = u64::from(self.steps()) * u64::from(in_c * stride_h * stride_w + out_c) * 4;
                bytes.div_ceil(CACHE_BYTES).min(MOST_PARTIALS_BYTES / (self.words * 4)) as u32
            }
            DeviceClass::Integrated | DeviceClass::Discrete => 1,
        }
    }

    /// Most parts that pay, that there are kernels for, and whose partial sums fit a binding.
    fn most_splits(&self, variant: Variant) -> u32 {
        let by_memory = (self.target.max_binding_bytes / (self.words * 4)).clamp(1, 1 << 16) as u32;
        let possible = match (self.way, variant) {
            (Way::BackwardWeight, _) => self.steps().div_ceil(MIN_PIXELS_PER_SPLIT),
            (_, Variant::Gemm64x64) => self.steps() / MIN_STEPS_PER_SPLIT,
            _ => 1,
        };
        possible.min(by_memory).max(1)
    }
}

/// Parts of `tiles` workgroups each that `workgroups` workgroups hold, at least one.
fn splits_in(workgroups: u64, tiles: u64) -> u32 {
    u32::try_from(workgroups / tiles).unwrap_or(u32::MAX).max(1)
}

/// Parts of `tiles` workgroups each that come to whole waves of `cores` workgroups, or just less: about `filling` workgroups in
/// all, or up to twice as many where those would leave more than a tenth of the cores idle in a last wave.
fn splits_in_waves(filling: u64, cores: u64, tiles: u64, most: u32) -> u32 {
    let fewest = ((filling + cores / 2) / cores).max(1);
    let candidates = (fewest..=2 * fewest).map(|waves| {
        let splits = splits_in(waves * cores, tiles).min(most);
        let workgroups = u64::from(splits) * tiles;
        (splits, workgroups as f64 / workgroups.next_multiple_of(cores) as f64)
    });
    let better = |best: (u32, f64), next: (u32, f64)| if best.1 < WAVES_FILLED && next.1 > best.1 { next } else { best };
    candidates.reduce(better).map_or(1, |(splits, _)| splits)
}

#[cfg(test)]
mod tests {
    use super::super::Task;
    use crate::graph::{Lowered, Lowering};
    use crate::kernels::{Choice, Choices, DeviceClass, MatrixUnits, Problem, Target};
    use crate::shape::Element;
    use std::sync::Arc;

    const NAMES: [&str; 5] = ["conv2d", "conv2d_relu", "conv2d_backward_input", "conv2d_backward_input_masked", "conv2d_backward_weight"];
    const CLASSES: [DeviceClass; 3] = [DeviceClass::Cpu, DeviceClass::Integrated, DeviceClass::Discrete];

    fn problem(op: &str) -> Problem {
        Problem {
            op: op.into(),
            batch: 8,
            input: [96, 26, 26],
            outputs: 256,
            kernel: [5, 5],
            stride: [1, 1],
            padding: [2, 2],
            element: Element::F32,
        }
    }

    fn lower(problem: &Problem, target: &Target) -> Lowered {
        let task = Task::new(problem).unwrap();
        let (inputs, outputs) = (task.inputs.iter().collect(), task.outputs.iter().collect());
        let is_read = vec![true; task.outputs.len()];
        task.op.lower(&Lowering { target, inputs, outputs, is_read, in_place: false })
    }

    fn with(target: &Target, problem: &Problem, choice: Choice) -> Target {
        Target { choices: Arc::new(Choices([(problem.clone(), choice)].into())), ..target.clone() }
    }

    #[test]
    fn candidates_are_distinct_ways_that_apply() {
        let targets = CLASSES.into_iter().flat_map(|class| [8, 16].map(|lanes| (class, lanes)));
        for ((class, lanes), op) in targets.flat_map(|target| NAMES.map(|op| (target, op))) {
            let target = Target { subgroup: Some(lanes), ..Target::baseline(class) };
            let problem = problem(op);
            let [few, all] = [false, true].map(|all| Task::new(&problem).unwrap().candidates(&target, all));
            assert!(few.iter().all(|choice| all.contains(choice)) && few[0] == all[0], "{op} {class:?}");
            assert!(all.len() > 2, "{op} {class:?}: {all:?}");
            let by_rules = format!("{:?}", lower(&problem, &target));
            let mut seen = vec![by_rules.clone()];
            for (index, choice) in all.into_iter().enumerate() {
                let lowered = lower(&problem, &with(&target, &problem, choice.clone()));
                let partials: u64 = lowered.scratch.iter().sum();
                assert!(partials <= target.max_binding_bytes, "{op} {class:?} {choice}");
                let lowered = format!("{lowered:?}");
                assert_eq!(lowered == by_rules, index == 0, "{op} {class:?}: only the first is that of the rules: {choice}");
                assert_eq!(seen.contains(&lowered), index == 0, "{op} {class:?}: {choice} comes twice");
                seen.push(lowered);
            }
        }
    }

    #[test]
    fn a_choice_that_does_not_apply_is_as_good_as_none() {
        for (op, class) in NAMES.iter().flat_map(|op| CLASSES.map(|class| (op, class))) {
            let target = Target::baseline(class);
            let problem = problem(op);
            let by_rules = format!("{:?}", lower(&problem, &target));
            for (variant, splits) in [("subgroup_8", 1), ("none", 1), ("", 1), ("lanes", 0), ("tiled", u32::MAX), ("gemm_64x64", 1 << 20)] {
                let choice = Choice { variant: variant.into(), splits, channels_innermost: true };
                let lowered = lower(&problem, &with(&target, &problem, choice.clone()));
                assert_eq!(format!("{lowered:?}"), by_rules, "{op} {class:?}: {choice}");
            }
            let other = Problem { batch: 9, ..problem.clone() };
            let choices = with(&target, &other, Choice { variant: "lanes_scalar".into(), splits: 1, channels_innermost: true });
            assert_eq!(format!("{:?}", lower(&problem, &choices)), by_rules, "the choice is for another problem");
        }
    }

    /// The layers of `nin` at batch 128: channels and size of x, channels of y, kernel, stride, padding.
    const NIN: [([usize; 3], usize, usize, usize, usize); 8] = [
        ([1, 224, 224], 96, 11, 4, 0),
        ([96, 54, 54], 96, 1, 1, 0),
        ([96, 26, 26], 256, 5, 1, 2),
        ([256, 26, 26], 256, 1, 1, 0),
        ([256, 12, 12], 384, 3, 1, 1),
        ([384, 12, 12], 384, 1, 1, 0),
        ([384, 5, 5], 12, 3, 1, 1),
        ([12, 5, 5], 12, 1, 1, 0),
    ];

    /// Workgroups of the first stage, by the kernels' own count.
    fn workgroups(lowered: &Lowered) -> u64 {
        lowered.dispatches[0].workgroups
    }

    #[test]
    fn splits_fill_whole_waves_of_the_cores() {
        let of_132 = Target { cores: Some(132), max_binding_bytes: 2 << 30, ..Target::baseline(DeviceClass::Discrete) };
        let with_units = Target { matrix_units: MatrixUnits::Sixteen, ..of_132.clone() };
        for (target, element) in [(&of_132, Element::F32), (&with_units, Element::F16)] {
            for (input, outputs, kernel, stride, padding) in NIN {
                let problem = Problem {
                    batch: 128,
                    input,
                    outputs,
                    kernel: [kernel; 2],
                    stride: [stride; 2],
                    padding: [padding; 2],
                    element,
                    ..problem("conv2d_backward_weight")
                };
                let [known, unknown] = [target.clone(), Target { cores: None, ..target.clone() }].map(|target| lower(&problem, &target));
                let share = |lowered: &Lowered| workgroups(lowered) as f64 / workgroups(lowered).next_multiple_of(132) as f64;
                // A part has at least 64 pixels: the last layer has too few for a wave.
                assert!(share(&known) >= 0.9 || input == [12, 5, 5], "{problem}: {} workgroups", workgroups(&known));
                assert!(share(&known) >= share(&unknown) && workgroups(&known) <= 4 * 132, "{problem}: {}", workgroups(&known));
            }
        }
    }

    #[test]
    fn candidates_come_to_whole_waves() {
        let target = Target { cores: Some(132), max_binding_bytes: 2 << 30, ..Target::baseline(DeviceClass::Discrete) };
        let problem = Problem { batch: 128, input: [256, 26, 26], kernel: [1, 1], padding: [0, 0], ..problem("conv2d_backward_weight") };
        // Two by two tiles.
        for all in [false, true] {
            let choices = Task::new(&problem).unwrap().candidates(&target, all);
            let splits: Vec<u32> = choices.iter().filter(|choice| choice.variant == "gemm_128x128").map(|choice| choice.splits).collect();
            assert!([33, 66, 132].iter().all(|wanted| splits.contains(wanted)), "{splits:?}");
        }
    }

    #[test]
    fn cores_change_nothing_where_they_are_unknown_or_a_cpu_s() {
        for op in NAMES {
            let cpu = Target { subgroup: Some(8), ..Target::baseline(DeviceClass::Cpu) };
            let with_cores = Target { cores: Some(3), ..cpu.clone() };
            assert_eq!(format!("{:?}", lower(&problem(op), &cpu)), format!("{:?}", lower(&problem(op), &with_cores)), "{op}");
        }
        // 266 workgroups would be two waves of 132 and two workgroups in a third.
        assert_eq!((super::splits_in_waves(256, 132, 38, 1000), super::splits_in_waves(256, 132, 1, 1000)), (10, 264));
        assert_eq!(super::splits_in_waves(256, 132, 1, 50), 50);
        assert_eq!(super::splits_in_waves(256, 60, 1, 1000), 240);
        assert_eq!(super::splits_in_waves(64, 8, 300, 1000), 1);
    }

    #[test]
    fn little_work_does_not_pay_for_large_kernels() {
        let target = Target { subgroup: Some(8), ..Target::baseline(DeviceClass::Cpu) };
        let little = Problem { batch: 1, input: [16, 5, 5], outputs: 16, ..problem("conv2d") };
        let choice = Choice { variant: "subgroup_8".into(), splits: 1, channels_innermost: true };
        let tuned = with(&target, &little, choice);
        let kernel = |target: &Target| lower(&little, target).dispatches[0].kernel.module;
        assert_eq!(kernel(&tuned), "conv2d_lanes_small");
        assert_eq!(kernel(&tuned.for_runs(usize::MAX)), "conv2d_subgroup_8");
        // Where a driver takes small kernels only, one of those may still be chosen.
        let small_only = Target { little_work: u64::MAX, ..target };
        let scalar = Choice { variant: "lanes_scalar".into(), splits: 1, channels_innermost: true };
        assert_eq!(kernel(&with(&small_only, &little, scalar)), "conv2d_lanes_scalar");
    }
}
