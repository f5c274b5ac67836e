//! Test cases of the convolution: whole numbers whose sums are exact in any order, and reals within the rounding of
//! a sum.

use super::{Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight};
use crate::graph::{Case, Op, Tolerance};
use crate::kernels::Step;
use crate::ops::{random_integers, random_reals};
use crate::shape::{Fact, Window};
use std::sync::Arc;

/// The shape of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ShapeCase {
    /// Images.
    pub batch: usize,
    /// Channels, height and width of x.
    pub input: [usize; 3],
    /// Output channels.
    pub outputs: usize,
    /// Kernel, stride, padding.
    pub window: Window,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// y, and with true ReLU.
    Forward(bool),
    /// dx, and with true masked by x.
    BackwardInput(bool),
    /// dweight and dbias.
    BackwardWeight,
}

impl Direction {
    /// Every direction, fused and not.
    pub const ALL: [Direction; 5] = [
        Direction::Forward(false),
        Direction::Forward(true),
        Direction::BackwardInput(false),
        Direction::BackwardInput(true),
        Direction::BackwardWeight,
    ];
}

impl ShapeCase {
    pub(super) fn op(&self, direction: Direction) -> Arc<dyn Op> {
        let window = self.window;
        let [_, h, w] = self.input;
        match direction {
            Direction::Forward(relu) => Arc::new(Conv2d { window, relu }),
            Direction::BackwardInput(mask) => Arc::new(Conv2dBackwardInput { window, input: [h, w], mask }),
            Direction::BackwardWeight => Arc::new(Conv2dBackwardWeight { window }),
        }
    }

    /// Facts of the inputs of the direction, and the length of the sums it computes.
    pub(super) fn inputs(&self, direction: Direction) -> (Vec<Fact>, usize) {
        let [c, h, w] = self.input;
        let [kh, kw] = self.window.kernel;
        let [oh, ow] = self.window.output([h, w]).unwrap_or([1, 1]);
        let x = Fact::activation(self.batch, c, h, w);
        let y = Fact::activation(self.batch, self.outputs, oh, ow);
        let weight = Fact::filter(self.outputs, c, kh, kw);
        match direction {
            Direction::Forward(_) => (vec![x, weight, Fact::vector(self.outputs)], c * kh * kw + 1),
            Direction::BackwardInput(false) => (vec![y, weight], self.outputs * kh * kw),
            Direction::BackwardInput(true) => (vec![y, weight, x], self.outputs * kh * kw),
            Direction::BackwardWeight => (vec![x, y], self.batch * oh * ow),
        }
    }

    fn case(&self, direction: Direction, tolerance: Tolerance, tier: &str, values: impl Fn(&Fact, u32, usize) -> Vec<f32>) -> Case {
        let (facts, sum_length) = self.inputs(direction);
        let inputs = facts.into_iter().zip(1..).map(|(fact, seed)| {
            let values = values(&fact, seed, sum_length);
            (fact, values)
        });
        let [c, h, w] = self.input;
        Case {
            name: format!("{tier} {}x{c}x{h}x{w} to {} channels, {}", self.batch, self.outputs, self.window),
            op: self.op(direction),
            inputs: inputs.collect(),
            step: Step::default(),
            tolerance: vec![tolerance; 2],
        }
    }
}

/// Whole numbers with `K · r² <= 2^24`: every order of summation gives the same bits.
pub fn exact_case(shape: &ShapeCase, direction: Direction) -> Case {
    shape.case(direction, Tolerance::Exact, "exact", |fact, seed, sum_length| {
        let radius = ((f64::from(1 << 24) / sum_length as f64).sqrt() as u32).clamp(1, 64);
        random_integers(&fact.shape, seed, radius)
    })
}

/// Whole numbers up to this, multiplied in pairs and summed `sum_length` times, rarely exceed what half precision holds.
pub(super) fn half_radius(sum_length: usize) -> u32 {
    ((1024.0 / (sum_length as f64).sqrt()).sqrt() as u32).clamp(1, 4)
}

/// Whole numbers up to 4 whose sums are likely far below the 2048 up to which half precision holds whole numbers; those that
/// are not may be off by its rounding.
pub fn exact_half_case(shape: &ShapeCase, direction: Direction) -> Case {
    shape.case(direction, Tolerance::Exact, "exact", |fact, seed, sum_length| random_integers(&fact.shape, seed, half_radius(sum_length)))
}

/// Reals, to within `8 · 2^-24` of the sum of absolute products.
pub fn real_case(shape: &ShapeCase, direction: Direction) -> Case {
    shape.case(direction, Tolerance::Sum { factor: 8.0 }, "real", |fact, seed, _| random_reals(&fact.shape, seed))
}

pub(in crate::ops) fn cases(quick: bool) -> Vec<Case> {
    both_tiers(quick, exact_case)
}

pub(in crate::ops) fn half_cases(quick: bool) -> Vec<Case> {
    both_tiers(quick, exact_half_case)
}

fn both_tiers(quick: bool, exact: impl Fn(&ShapeCase, Direction) -> Case) -> Vec<Case> {
    let shape = |batch, input, outputs, kernel, stride, padding| ShapeCase {
        batch,
        input,
        outputs,
        window: Window::square(kernel, stride, padding),
    };
    let mut shapes = vec![
        shape(2, [1, 29, 27], 12, 11, 4, 0),
        shape(2, [8, 9, 7], 20, 5, 1, 2),
        shape(3, [16, 6, 5], 32, 1, 1, 0),
        shape(1, [3, 8, 9], 5, 3, 2, 1),
    ];
    if !quick {
        shapes.extend([
            shape(3, [17, 7, 6], 31, 3, 1, 1),
            shape(2, [33, 5, 4], 65, 1, 1, 0),
            shape(2, [5, 9, 8], 3, 2, 3, 1),
            shape(1, [63, 6, 6], 13, 4, 1, 3),
            shape(2, [2, 12, 10], 7, 7, 1, 3),
            shape(1, [12, 10, 10], 1, 3, 2, 0),
            ShapeCase {
                batch: 2,
                input: [4, 11, 6],
                outputs: 8,
                window: Window { kernel: [5, 2], stride: [2, 1], padding: [1, 0], ceil_mode: false },
            },
        ]);
    }
    shapes.iter().flat_map(|s| Direction::ALL.into_iter().flat_map(|d| [exact(s, d), real_case(s, d)])).collect()
}
