//! Max pooling.

use super::pool::{channels_at_once, covered, expect, pool_params, pooled, shapes};
use super::random_integers;
use crate::graph::{Case, Fusion, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, max_pool2d, max_pool2d_scalar, workgroups_for};
use crate::shape::{Fact, ShapeError, Window, channels_in_memory};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y` = largest pixel of each window; padding is never the largest, and of equal pixels the first in scan order wins.
///
/// Outputs: `y`, and for the gradient the winner's offset `ky · kernel width + kx` within its window: a byte for each
/// channel, four in a word, as `[N, H, W, channels in memory / 4]`; a word for each where there are fewer than four channels,
/// or more than 256 pixels in a window. Without a reader the offsets are not written.
#[derive(Clone, Debug)]
pub struct MaxPool2d {
    /// Kernel, stride and padding.
    pub window: Window,
}

/// `dx` = sum of `dy` over the windows that the pixel won. Inputs: dy, winners and, if `masked`, the pool's output y: `dx` is
/// 0 where the pool's input is not positive. A winner equals y, so that input is not needed.
#[derive(Clone, Debug)]
pub struct MaxPool2dBackward {
    /// Kernel, stride and padding of the pool.
    pub window: Window,
    /// The pool's input.
    pub input: Fact,
    /// There is a mask.
    pub masked: bool,
}

/// Most pixels of a window whose offsets fit a byte.
const PIXELS_OF_A_BYTE: usize = 256;

/// Channels of one element of the kernels: four where channels in memory and offsets of a byte allow.
fn channels_per_element(window: &Window, fact: &Fact) -> usize {
    let fits_a_byte = window.kernel[0] * window.kernel[1] <= PIXELS_OF_A_BYTE;
    if fits_a_byte { channels_at_once(fact) } else { 1 }
}

/// The winners of a pool's `output`: a word for each element.
fn winner_fact(window: &Window, output: &Fact) -> Fact {
    let [n, c, h, w] = output.shape.four();
    Fact::index(&[n, h, w, channels_in_memory(c) / channels_per_element(window, output)])
}

/// Offset of channel `c` in a word of winners that holds `per_word` of them.
fn offset_in(word: f64, c: usize, per_word: usize) -> usize {
    let shifted = word as u64 >> (8 * (c % per_word));
    (if per_word > 1 { shifted & 0xff } else { shifted }) as usize
}

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn attributes(&self) -> String {
        self.window.to_string()
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let y = pooled(&self.window, inputs[0])?;
        let winner = winner_fact(&self.window, &y);
        Ok(vec![y, winner])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        let Some(dy) = gradient.output_gradients[0] else { return Ok(vec![None]) };
        let backward = MaxPool2dBackward { window: self.window, input: gradient.input_fact(0).clone(), masked: false };
        let winner = gradient.outputs[1];
        Ok(vec![Some(gradient.node(backward, &[dy, winner])?)])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let per_element = channels_per_element(&self.window, node.outputs[0]);
        let params = pool_params(&self.window, node.inputs[0], node.outputs[0], node.outputs[0].words(), per_element);
        let (x, y, winner) = (Operand::Input(0), Operand::Output(0), Operand::Output(1));
        let workgroups = workgroups_for(&max_pool2d::FORWARD, params.elements as usize);
        match (node.is_read[1], per_element) {
            (true, 4) => max_pool2d::forward(params, x, y, winner, workgroups).into(),
            (true, _) => max_pool2d_scalar::forward(params, x, y, winner, workgroups).into(),
            (false, 4) => max_pool2d::forward_no_indices(params, x, y, workgroups).into(),
            (false, _) => max_pool2d_scalar::forward_no_indices(params, x, y, workgroups).into(),
        }
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let x = &inputs[0];
        let [images, channels, in_h, in_w] = x.shape.four();
        let [out_h, out_w] = self.window.output([in_h, in_w]).unwrap_or_default();
        let in_memory = channels_in_memory(channels);
        let output = Fact::activation(images, channels, out_h, out_w);
        let per_word = channels_per_element(&self.window, &output);
        let mut y = Tensor::zeros(&output.shape);
        let mut winner = Tensor::zeros(&winner_fact(&self.window, &output).shape);
        for n in 0..images {
            for oy in 0..out_h {
                for ox in 0..out_w {
                    for c in 0..in_memory {
                        let mut best: Option<(f64, usize)> = None;
                        for row in covered(&self.window, 0, oy, in_h) {
                            for column in covered(&self.window, 1, ox, in_w) {
                                // Padding lanes hold zeros.
                                let value = if c < channels { x.data[x.at([n, c, row, column])] } else { 0.0 };
                                if best.is_none_or(|(largest, _)| value > largest) {
                                    let ky = row + self.window.padding[0] - oy * self.window.stride[0];
                                    let kx = column + self.window.padding[1] - ox * self.window.stride[1];
                                    best = Some((value, ky * self.window.kernel[1] + kx));
                                }
                            }
                        }
                        let (value, offset) = best.unwrap_or_default();
                        let at = winner.at([n, oy, ox, c / per_word]);
                        winner.data[at] += (offset << (8 * (c % per_word))) as f64;
                        if c < channels {
                            let at = y.at([n, c, oy, ox]);
                            y.data[at] = value;
                        }
                    }
                }
            }
        }
        vec![y, winner]
    }
}

impl Op for MaxPool2dBackward {
    fn name(&self) -> &'static str {
        "max_pool2d_backward"
    }

    fn attributes(&self) -> String {
        format!("{}{}", self.window, if self.masked { " masked" } else { "" })
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let y = pooled(&self.window, &self.input)?;
        expect(&y, inputs[0])?;
        expect(&winner_fact(&self.window, &y), inputs[1])?;
        if self.masked {
            expect(&y, inputs[2])?;
        }
        Ok(vec![self.input.clone()])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let per_element = channels_per_element(&self.window, node.outputs[0]);
        let params = pool_params(&self.window, node.outputs[0], node.inputs[0], node.outputs[0].words(), per_element);
        let (dy, winner, dx) = (Operand::Input(0), Operand::Input(1), Operand::Output(0));
        let workgroups = workgroups_for(&max_pool2d::BACKWARD, params.elements as usize);
        let y = Operand::Input(2);
        match (self.masked, per_element) {
            (true, 4) => max_pool2d::backward_masked(params, dy, winner, dx, y, workgroups).into(),
            (true, _) => max_pool2d_scalar::backward_masked(params, dy, winner, dx, y, workgroups).into(),
            (false, 4) => max_pool2d::backward(params, dy, winner, dx, workgroups).into(),
            (false, _) => max_pool2d_scalar::backward(params, dy, winner, dx, workgroups).into(),
        }
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let (dy, winner, y) = (&inputs[0], &inputs[1], inputs.get(2));
        let [images, channels, out_h, out_w] = dy.shape.four();
        let per_word = channels_per_element(&self.window, &self.input);
        let mut dx = Tensor::zeros(&self.input.shape);
        for n in 0..images {
            for c in 0..channels {
                for oy in 0..out_h {
                    for ox in 0..out_w {
                        let offset = offset_in(winner.data[winner.at([n, oy, ox, c / per_word])], c, per_word);
                        let row = oy * self.window.stride[0] + offset / self.window.kernel[1] - self.window.padding[0];
                        let column = ox * self.window.stride[1] + offset % self.window.kernel[1] - self.window.padding[1];
                        let (from, to) = (dy.at([n, c, oy, ox]), dx.at([n, c, row, column]));
                        if y.is_none_or(|y| y.data[from] > 0.0) {
                            dx.data[to] += dy.data[from];
                        }
                    }
                }
            }
        }
        vec![dx]
    }

    fn fusion(&self) -> Fusion {
        Fusion::MaxPoolBackward
    }

    fn with_mask(&self) -> Option<Arc<dyn Op>> {
        (!self.masked).then(|| Arc::new(MaxPool2dBackward { masked: true, ..self.clone() }) as Arc<dyn Op>)
    }
}

/// Test cases of a max pool over `[N, C, H, W]`: forward, backward and masked backward, bit for bit.
pub fn max_pool2d_cases(window: Window, [n, c, h, w]: [usize; 4]) -> Vec<Case> {
    let x = Fact::activation(n, c, h, w);
    let pool = MaxPool2d { window };
    // Below zero, so that padding would win if it took part; with many ties.
    let values: Vec<f32> = random_integers(&x.shape, 1, 3).into_iter().map(|v| v - 5.0).collect();
    let outputs = pool.reference(&[Tensor::from_f32(&x.shape, &values)], &Step::default());
    let dy = Fact { shape: outputs[0].shape.clone(), ..x.clone() };
    let winner = (winner_fact(&window, &dy), outputs[1].data.iter().map(|offset| f32::from_bits(*offset as u32)).collect());
    let case = |direction: &str, op: Arc<dyn Op>, inputs: Vec<(Fact, Vec<f32>)>| {
        let tolerance = vec![Tolerance::Exact; if direction == "forward" { 2 } else { 1 }];
        Case { name: format!("{direction} {window}, {}", x.shape), op, inputs, step: Step::default(), tolerance }
    };
    let gradient = (dy.clone(), random_integers(&dy.shape, 2, 50));
    let backward = |masked| Arc::new(MaxPool2dBackward { window, input: x.clone(), masked });
    vec![
        case("forward", Arc::new(pool), vec![(x.clone(), values)]),
        case("backward", backward(false), vec![gradient.clone(), winner.clone()]),
        case("masked backward", backward(true), vec![gradient, winner, (dy.clone(), random_integers(&dy.shape, 3, 2))]),
    ]
}

pub(super) fn cases(quick: bool) -> Vec<Case> {
    // The last window's offsets do not fit a byte.
    let shapes = shapes().into_iter().chain([(Window::square(17, 3, 8), [1, 4, 19, 23])]);
    let mut cases: Vec<Case> = shapes.flat_map(|(window, input)| max_pool2d_cases(window, input)).collect();
    if quick {
        cases.truncate(6);
    }
    cases
}
