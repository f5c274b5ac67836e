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
    /// with the rules' splits, and half and twice as many splits for the rules' family. All of them: every family in every
    /// order with several splits.
    pub fn candidates(&self, all: bool) -> Vec<Selected> {
        let rules = self.by_rules();
        let mut found = vec![rules];
        for variant in self.variants().into_iter().filter(|variant| all || *variant == rules.variant || !variant.is_stopgap()) {
            let splits = self.splits_by_rules(variant);
            let factors: &[(u32, u32)] = match (all, variant == rules.variant) {
                (true, _) => &[(1, 1), (1, 2), (2, 1), (1, 4), (4, 1), (8, 1)],
                (false, true) => &[(1, 1), (1, 2), (2, 1)],
                (false, false) => &[(1, 1)],
            };
            let orders = if all && variant.has_orders() && self.way != Way::BackwardWeight {
                vec![rules.channels_innermost, !rules.channels_innermost]
            } else {
                vec![rules.channels_innermost]
            };
            for (times, over) in factors {
                let splits = (splits * times / over).clamp(1, self.most_splits(variant));
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
        let variant = Variant::choose(self.target, &self.params, self.element, &self.results());
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
        let filling = self.target.filling_workgroups;
        let wanted = match (self.way, self.results()) {
            (Way::BackwardWeight, Results::Weights { rows, channels }) => {
                let tiling = variant.tiling();
                let tiles = rows.div_ceil(tiling.rows) * channels.div_ceil(tiling.channels);
                let to_fill = (filling * tiling.per_workgroup).div_ceil(tiles);
                to_fill.max(self.splits_to_cache()).into()
            }
            (_, Results::Pixels { rows, channels } | Results::Weights { rows, channels }) => {
                u64::from(filling) / variant.workgroups(rows, channels).max(1)
            }
        };
        wanted.clamp(1, self.most_splits(variant).into()) as u32
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

#[cfg(test)]
mod tests {
    use super::super::Task;
    use crate::graph::{Lowered, Lowering};
    use crate::kernels::{Choice, Choices, DeviceClass, Problem, Target};
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
