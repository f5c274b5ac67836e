//! Average pooling.

use super::pool::{channels_at_once, covered, expect, masked, pool_params, pooled, shapes};
use super::random_reals;
use crate::graph::{Case, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, avg_pool2d, avg_pool2d_scalar, workgroups_for};
use crate::shape::{Fact, Shape, ShapeError, Window};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y` = sum of each window divided by its size, padding counted as zeros (PyTorch's `count_include_pad`). What a last
/// window, rounding up, has beyond the padded input does not count towards its size.
#[derive(Clone, Debug)]
pub struct AvgPool2d {
    /// Kernel, stride and padding.
    pub window: Window,
}

/// `dx` = sum of `dy / size` over the windows that cover the pixel. Inputs: dy and, if `masked`, a last one: `dx` is 0
/// where that is not positive.
#[derive(Clone, Debug)]
pub struct AvgPool2dBackward {
    /// Kernel, stride and padding of the pool.
    pub window: Window,
    /// The pool's input.
    pub input: Fact,
    /// There is a mask.
    pub masked: bool,
}

/// Pixels and padding in the window at `(oy, ox)`.
fn window_size(window: &Window, input: [usize; 2], at: [usize; 2]) -> f64 {
    let extent = |axis: usize| {
        let start = at[axis] * window.stride[axis];
        (start + window.kernel[axis]).min(input[axis] + 2 * window.padding[axis]) - start
    };
    (extent(0) * extent(1)) as f64
}

/// Calls `visit(index of the output element, index of the input element, 1 / window size)` for every pair that meets.
fn for_each_pair(window: &Window, x: &Shape, mut visit: impl FnMut([usize; 4], [usize; 4], f64)) {
    let [images, channels, in_h, in_w] = x.four();
    let [out_h, out_w] = window.output([in_h, in_w]).unwrap_or_default();
    for n in 0..images {
        for c in 0..channels {
            for oy in 0..out_h {
                for ox in 0..out_w {
                    let share = 1.0 / window_size(window, [in_h, in_w], [oy, ox]);
                    for row in covered(window, 0, oy, in_h) {
                        for column in covered(window, 1, ox, in_w) {
                            visit([n, c, oy, ox], [n, c, row, column], share);
                        }
                    }
                }
            }
        }
    }
}

impl Op for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn attributes(&self) -> String {
        self.window.to_string()
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        Ok(vec![pooled(&self.window, inputs[0])?])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        let Some(dy) = gradient.output_gradients[0] else { return Ok(vec![None]) };
        let backward = AvgPool2dBackward { window: self.window, input: gradient.input_fact(0).clone(), masked: false };
        Ok(vec![Some(gradient.node(backward, &[dy])?)])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let per_element = channels_at_once(node.outputs[0]);
        let params = pool_params(&self.window, node.inputs[0], node.outputs[0], node.outputs[0].words(), per_element);
        let forward = if per_element == 4 { avg_pool2d::forward } else { avg_pool2d_scalar::forward };
        let workgroups = workgroups_for(&avg_pool2d::FORWARD, params.elements as usize);
        forward(params, Operand::Input(0), Operand::Output(0), workgroups).into()
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let x = &inputs[0];
        let [images, channels, in_h, in_w] = x.shape.four();
        let [out_h, out_w] = self.window.output([in_h, in_w]).unwrap_or_default();
        let mut y = Tensor::zeros(&Shape::nchw(images, channels, out_h, out_w));
        for_each_pair(&self.window, &x.shape, |to, from, share| {
            let at = y.at(to);
            y.data[at] += x.data[x.at(from)] * share;
        });
        vec![y]
    }
}

impl Op for AvgPool2dBackward {
    fn name(&self) -> &'static str {
        "avg_pool2d_backward"
    }

    fn attributes(&self) -> String {
        format!("{}{}", self.window, if self.masked { " masked" } else { "" })
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        expect(&pooled(&self.window, &self.input)?, inputs[0])?;
        Ok(vec![self.input.clone()])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let per_element = channels_at_once(node.outputs[0]);
        let params = pool_params(&self.window, node.outputs[0], node.inputs[0], node.outputs[0].words(), per_element);
        let (x, dy, dx) = (Operand::Input(1), Operand::Input(0), Operand::Output(0));
        let workgroups = workgroups_for(&avg_pool2d::BACKWARD, params.elements as usize);
        match (node.in_place, self.masked, per_element) {
            (true, _, 4) => avg_pool2d::backward_masked_in_place(params, dy, dx, workgroups).into(),
            (true, ..) => avg_pool2d_scalar::backward_masked_in_place(params, dy, dx, workgroups).into(),
            (false, true, 4) => avg_pool2d::backward_masked(params, x, dy, dx, workgroups).into(),
            (false, true, _) => avg_pool2d_scalar::backward_masked(params, x, dy, dx, workgroups).into(),
            (false, false, 4) => avg_pool2d::backward(params, dy, dx, workgroups).into(),
            (false, false, _) => avg_pool2d_scalar::backward(params, dy, dx, workgroups).into(),
        }
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let dy = &inputs[0];
        let mut dx = Tensor::zeros(&self.input.shape);
        for_each_pair(&self.window, &self.input.shape, |from, to, share| {
            let at = dx.at(to);
            dx.data[at] += dy.data[dy.at(from)] * share;
        });
        vec![masked(dx, inputs.get(1))]
    }

    fn in_place(&self) -> Option<usize> {
        self.masked.then_some(1)
    }

    fn with_mask(&self) -> Option<Arc<dyn Op>> {
        (!self.masked).then(|| Arc::new(AvgPool2dBackward { masked: true, ..self.clone() }) as Arc<dyn Op>)
    }
}

/// Test cases of an average pool over `[N, C, H, W]`: forward, backward and masked backward, to within
/// `8 · 2^-24` of the mean of absolute values. Empty for a window that does not fit.
pub fn avg_pool2d_cases(window: Window, [n, c, h, w]: [usize; 4]) -> Vec<Case> {
    let x = Fact::activation(n, c, h, w);
    let Ok(dy) = pooled(&window, &x) else { return Vec::new() };
    let case = |direction: &str, op: Arc<dyn Op>, facts: &[&Fact]| Case {
        name: format!("{direction} {window}, {}", x.shape),
        op,
        inputs: facts.iter().zip(1..).map(|(fact, seed)| ((*fact).clone(), random_reals(&fact.shape, seed))).collect(),
        step: Step::default(),
        tolerance: vec![Tolerance::Sum { factor: 8.0 }],
    };
    let backward = |masked| Arc::new(AvgPool2dBackward { window, input: x.clone(), masked });
    vec![
        case("forward", Arc::new(AvgPool2d { window }), &[&x]),
        case("backward", backward(false), &[&dy]),
        case("masked backward", backward(true), &[&dy, &x]),
    ]
}

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let mut cases: Vec<Case> = shapes().into_iter().flat_map(|(window, input)| avg_pool2d_cases(window, input)).collect();
    if quick {
        cases.truncate(6);
    }
    cases
}
