//! Two-dimensional convolution with bias (cross-correlation, as in every framework), and its gradients.

mod cases;
mod choose;
mod lower;
mod problem;
mod reference;
mod variant;

pub use cases::{Direction, ShapeCase, exact_case, exact_half_case, real_case};
pub(super) use cases::{cases, half_cases};
pub use problem::Task;

use crate::graph::{Gradient, GraphError, Lowered, Lowering, Op, ValueId};
use crate::kernels::{Problem, Step};
use crate::shape::{Fact, ShapeError, Window};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y[n,o,i,j] = bias[o] + sum over c,k,l of x[n, c, i·s+k-p, j·s+l-p] · weight[o,c,k,l]`, optionally followed by ReLU.
///
/// Inputs: x `[N, C, H, W]`, weight `[O, C, KH, KW]`, bias `[O]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// Kernel, stride, padding; `ceil_mode` does not apply.
    pub window: Window,
    /// Apply `max(0, ·)` to the result.
    pub relu: bool,
}

/// Gradient of the loss with respect to x. Inputs: dy `[N, O, OH, OW]`, weight, and with `mask` the layer's x: where
/// it is not positive the result is zero (the gradient of the ReLU that made x).
#[derive(Clone, Debug)]
pub struct Conv2dBackwardInput {
    /// Window of the layer.
    pub window: Window,
    /// Height and width of x: a strided window does not determine them.
    pub input: [usize; 2],
    /// Read the layer's x and mask with it.
    pub mask: bool,
}

/// Gradients of the loss with respect to weight and bias, in one pass over x. Inputs: x, dy.
#[derive(Clone, Debug)]
pub struct Conv2dBackwardWeight {
    /// Window of the layer.
    pub window: Window,
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        if self.relu { "conv2d_relu" } else { "conv2d" }
    }

    fn attributes(&self) -> String {
        self.window.to_string()
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [n, c, h, w] = inputs[0].shape.four();
        let [o, i, ..] = inputs[1].shape.four();
        if c != i {
            return Err(ShapeError::Mismatch {
                expected: format!("{i} input channels for a filter of {}", inputs[1].shape),
                got: format!("{c} channels in an input of {}", inputs[0].shape),
            });
        }
        let [oh, ow] = self.window.output([h, w])?;
        Ok(vec![Fact::activation(n, o, oh, ow)])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        let Some(dy) = gradient.output_gradients[0] else { return Ok(vec![None; 3]) };
        let (x, weight) = (gradient.inputs[0], gradient.inputs[1]);
        let [_, _, h, w] = gradient.input_fact(0).shape.four();
        let weights = if gradient.wanted[1] || gradient.wanted[2] {
            let backward_weight = Arc::new(Conv2dBackwardWeight { window: self.window });
            gradient.graph.add_node(gradient.path, backward_weight, &[x, dy])?.into_iter().map(Some).collect()
        } else {
            vec![None; 2]
        };
        let dx = if gradient.wanted[0] {
            Some(gradient.node(Conv2dBackwardInput { window: self.window, input: [h, w], mask: false }, &[dy, weight])?)
        } else {
            None
        };
        Ok(vec![dx, weights[0], weights[1]])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        lower::forward(self, node)
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let y = reference::forward(&self.window, &inputs[0], &inputs[1], &inputs[2]);
        vec![if self.relu { y.map(|v| v.max(0.0)) } else { y }]
    }

    fn with_relu(&self) -> Option<Arc<dyn Op>> {
        (!self.relu).then(|| Arc::new(Conv2d { relu: true, ..self.clone() }) as Arc<dyn Op>)
    }

    fn problem(&self, inputs: &[&Fact], outputs: &[&Fact]) -> Option<Problem> {
        Some(problem::problem(self.name(), &self.window, inputs[0], outputs[0]))
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let [_, c, kh, kw] = inputs[1].shape.four();
        outputs[0].shape.elements() as u64 * (c * kh * kw) as u64
    }
}

impl Op for Conv2dBackwardInput {
    fn name(&self) -> &'static str {
        if self.mask { "conv2d_backward_input_masked" } else { "conv2d_backward_input" }
    }

    fn attributes(&self) -> String {
        self.window.to_string()
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [n, ..] = inputs[0].shape.four();
        let [_, c, ..] = inputs[1].shape.four();
        Ok(vec![Fact::activation(n, c, self.input[0], self.input[1])])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        lower::backward_input(self, node)
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let dx = reference::backward_input(&self.window, self.input, &inputs[0], &inputs[1]);
        vec![if self.mask { dx.zip(&inputs[2], |dx, x| if x > 0.0 { dx } else { 0.0 }) } else { dx }]
    }

    fn in_place(&self) -> Option<usize> {
        self.mask.then_some(2)
    }

    fn with_mask(&self) -> Option<Arc<dyn Op>> {
        (!self.mask).then(|| Arc::new(Conv2dBackwardInput { mask: true, ..self.clone() }) as Arc<dyn Op>)
    }

    fn problem(&self, inputs: &[&Fact], outputs: &[&Fact]) -> Option<Problem> {
        Some(problem::problem(self.name(), &self.window, outputs[0], inputs[0]))
    }

    fn macs(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        let [_, c, kh, kw] = inputs[1].shape.four();
        inputs[0].shape.elements() as u64 * (c * kh * kw) as u64
    }
}

impl Op for Conv2dBackwardWeight {
    fn name(&self) -> &'static str {
        "conv2d_backward_weight"
    }

    fn attributes(&self) -> String {
        self.window.to_string()
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [_, c, ..] = inputs[0].shape.four();
        let [_, o, ..] = inputs[1].shape.four();
        let [kh, kw] = self.window.kernel;
        Ok(vec![Fact::filter(o, c, kh, kw), Fact::vector(o)])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        lower::backward_weight(self, node)
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let (dweight, dbias) = reference::backward_weight(&self.window, &inputs[0], &inputs[1]);
        vec![dweight, dbias]
    }

    fn problem(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> Option<Problem> {
        Some(problem::problem(self.name(), &self.window, inputs[0], inputs[1]))
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let [_, c, kh, kw] = outputs[0].shape.four();
        inputs[1].shape.elements() as u64 * (c * kh * kw) as u64
    }
}
