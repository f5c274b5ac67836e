//! A node's convolution as the plain data that choices are kept for, and back.

use super::cases::half_radius;
use super::choose::{Selector, Way};
use super::lower::{params, texture_bytes_of, weight_words};
use super::{Direction, ShapeCase, reference};
use crate::graph::Op;
use crate::kernels::{Choice, Problem, Target};
use crate::shape::{Element, Fact, Layout, Window, channels_in_memory};
use std::sync::Arc;

/// What a node computes: `op` of a convolution of `x` to `y`.
pub(super) fn problem(op: &str, window: &Window, x: &Fact, y: &Fact) -> Problem {
    let [batch, c, h, w] = x.shape.four();
    let [_, outputs, ..] = y.shape.four();
    Problem {
        op: op.to_string(),
        batch,
        input: [channels_in_memory(c), h, w],
        outputs: channels_in_memory(outputs),
        kernel: window.kernel,
        stride: window.stride,
        padding: window.padding,
        element: x.element,
    }
}

/// A problem made ready for running it by itself.
pub struct Task {
    /// The operation.
    pub op: Arc<dyn Op>,
    /// Facts of its inputs.
    pub inputs: Vec<Fact>,
    /// Facts of its outputs.
    pub outputs: Vec<Fact>,
    /// Products in the sum behind a result: of the longest.
    pub sum_length: usize,
    shape: ShapeCase,
    direction: Direction,
}

impl Task {
    /// The operation of a problem; `None` where it names none, or one that does not fit its input.
    pub fn new(problem: &Problem) -> Option<Self> {
        let Problem { op, batch, input, outputs, kernel, stride, padding, element } = problem.clone();
        let window = Window { kernel, stride, padding, ceil_mode: false };
        let shape = ShapeCase { batch, input, outputs, window };
        window.output([input[1], input[2]]).ok()?;
        let direction = Direction::ALL.into_iter().find(|direction| shape.op(*direction).name() == op)?;
        let (mut inputs, sum_length) = shape.inputs(direction);
        let op = shape.op(direction);
        let mut outputs = op.outputs(&inputs.iter().collect::<Vec<_>>()).ok()?;
        // As `passes::precision` decides: gradients of filters stay in single precision.
        let is_stored = |fact: &&mut Fact| matches!(fact.layout, Layout::Activation | Layout::Filter);
        inputs.iter_mut().filter(is_stored).for_each(|fact| fact.element = element);
        outputs.iter_mut().filter(|fact| fact.layout == Layout::Activation).for_each(|fact| fact.element = element);
        Some(Task { op, inputs, outputs, sum_length, shape, direction })
    }

    /// The choices worth measuring on a device, that of the rules first; only the most promising, or all of them.
    pub fn candidates(&self, target: &Target, all: bool) -> Vec<Choice> {
        let ShapeCase { batch, input: [c, h, w], outputs, window } = self.shape;
        let Ok([oh, ow]) = window.output([h, w]) else { return Vec::new() };
        let (x, y) = (Fact::activation(batch, c, h, w), Fact::activation(batch, outputs, oh, ow));
        let params = params(&window, &x, &y, false);
        let (way, words) = match self.direction {
            Direction::Forward(_) => (Way::Forward, y.words()),
            Direction::BackwardInput(_) => (Way::BackwardInput, x.words()),
            Direction::BackwardWeight => (Way::BackwardWeight, weight_words(&params)),
        };
        let macs = self.op.macs(&self.inputs.iter().collect::<Vec<_>>(), &self.outputs.iter().collect::<Vec<_>>());
        let operand_bytes = [texture_bytes_of(&self.inputs[0]), texture_bytes_of(&self.inputs[1])];
        let element = self.inputs[0].element;
        let selector = Selector { target, params, way, words: words as u64, macs, element, operand_bytes };
        selector.candidates(all).into_iter().map(Choice::from).collect()
    }

    /// Whole numbers up to this have sums that are exact in every order. Where results are stored in half precision, few
    /// exceed what it holds.
    pub fn whole_radius(&self) -> u32 {
        if self.outputs.iter().any(|fact| fact.element == Element::F16) {
            return half_radius(self.sum_length);
        }
        ((f64::from(1 << 24) / self.sum_length as f64).sqrt() as u32).clamp(1, 64)
    }

    /// One element of an output in double precision, and the sum of the magnitudes of what it adds up. `value` gives
    /// an input's element by its place in memory, and `index` is a place in the output's memory: without channels that
    /// only pad, those are all there are.
    pub fn element(&self, output: usize, index: usize, value: impl Fn(usize, usize) -> f64) -> [f64; 2] {
        reference::element(&self.shape, self.direction, output, index, value)
    }
}
