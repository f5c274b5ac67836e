//! Mean over all pixels of a channel: PyTorch's `AdaptiveAvgPool2d(1)`.

use super::pool::{activation_dims, expect, masked};
use super::random_reals;
use crate::graph::{Case, Fusion, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, global_avg_pool, workgroups_for};
use crate::shape::{Fact, Shape, ShapeError, channels_in_memory};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `[N, C, H, W]` to `[N, C, 1, 1]`: `y = Σ x / (H · W)`.
#[derive(Debug)]
pub struct GlobalAvgPool;

/// `dx = dy / (H · W)`. Inputs: dy and, if `masked`, a last one: `dx` is 0 where that is not positive.
#[derive(Clone, Debug)]
pub struct GlobalAvgPoolBackward {
    /// Height and width of the pool's input.
    pub size: [usize; 2],
    /// There is a mask.
    pub masked: bool,
}

/// Constants of the kernels for the activation `x` and its mean.
fn params(x: &Fact, words: usize) -> global_avg_pool::Params {
    let [_, channels, height, width] = x.shape.four();
    global_avg_pool::Params {
        words: words as u32,
        channels: channels_in_memory(channels) as u32,
        height: height as u32,
        width: width as u32,
    }
}

impl Op for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn fusion(&self) -> Fusion {
        Fusion::GlobalPool
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [n, c, h, w] = activation_dims(inputs[0])?;
        if h * w == 0 {
            return Err(ShapeError::Invalid(format!("there is no mean over {h}x{w} pixels")));
        }
        Ok(vec![Fact::activation(n, c, 1, 1)])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        let Some(dy) = gradient.output_gradients[0] else { return Ok(vec![None]) };
        let [_, _, height, width] = gradient.input_fact(0).shape.four();
        Ok(vec![Some(gradient.node(GlobalAvgPoolBackward { size: [height, width], masked: false }, &[dy])?)])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let words = node.outputs[0].words();
        let workgroups = workgroups_for(&global_avg_pool::FORWARD, words);
        global_avg_pool::forward(params(node.inputs[0], words), Operand::Input(0), Operand::Output(0), workgroups).into()
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let [n, c, h, w] = inputs[0].shape.four();
        let data = inputs[0].data.chunks(h * w).map(|pixels| pixels.iter().sum::<f64>() / (h * w) as f64).collect();
        vec![Tensor { shape: Shape::nchw(n, c, 1, 1), data }]
    }
}

impl Op for GlobalAvgPoolBackward {
    fn name(&self) -> &'static str {
        "global_avg_pool_backward"
    }

    fn attributes(&self) -> String {
        let [height, width] = self.size;
        format!("{height}x{width}{}", if self.masked { " masked" } else { "" })
    }

    fn fusion(&self) -> Fusion {
        Fusion::GlobalPoolBackward { masked: self.masked }
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [n, c, ..] = activation_dims(inputs[0])?;
        expect(&Fact::activation(n, c, 1, 1), inputs[0])?;
        Ok(vec![Fact::activation(n, c, self.size[0], self.size[1])])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let words = node.outputs[0].words();
        let params = params(node.outputs[0], words);
        let (dy, dx) = (Operand::Input(0), Operand::Output(0));
        if self.masked {
            let workgroups = workgroups_for(&global_avg_pool::BACKWARD_MASKED, words);
            global_avg_pool::backward_masked(params, Operand::Input(1), dy, dx, workgroups).into()
        } else {
            global_avg_pool::backward(params, dy, dx, workgroups_for(&global_avg_pool::BACKWARD, words)).into()
        }
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let [n, c, ..] = inputs[0].shape.four();
        let pixels = self.size[0] * self.size[1];
        let data = inputs[0].data.iter().flat_map(|dy| std::iter::repeat_n(dy / pixels as f64, pixels)).collect();
        vec![masked(Tensor { shape: Shape::nchw(n, c, self.size[0], self.size[1]), data }, inputs.get(1))]
    }

    fn with_mask(&self) -> Option<Arc<dyn Op>> {
        (!self.masked).then(|| Arc::new(GlobalAvgPoolBackward { masked: true, ..self.clone() }) as Arc<dyn Op>)
    }
}

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |direction: &str, op: Arc<dyn Op>, x: &Fact, facts: &[&Fact]| {
        cases.push(Case {
            name: format!("{direction} {}", x.shape),
            op,
            inputs: facts.iter().zip(1..).map(|(fact, seed)| ((*fact).clone(), random_reals(&fact.shape, seed))).collect(),
            step: Step::default(),
            tolerance: vec![Tolerance::Sum { factor: 8.0 }],
        });
    };
    for [n, c, h, w] in [[3, 10, 5, 5], [2, 3, 7, 4], [1, 1, 1, 1], [127, 17, 2, 1], [1, 5, 23, 29]] {
        let (x, dy) = (Fact::activation(n, c, h, w), Fact::activation(n, c, 1, 1));
        let backward = |masked| Arc::new(GlobalAvgPoolBackward { size: [h, w], masked });
        add("forward", Arc::new(GlobalAvgPool), &x, &[&x]);
        add("backward", backward(false), &x, &[&dy]);
        add("masked backward", backward(true), &x, &[&dy, &x]);
    }
    if !quick {
        // More workgroups than one dimension of a dispatch may have.
        let (x, dy) = (Fact::activation(1, 4, 1030, 1030), Fact::activation(1, 4, 1, 1));
        add("backward", Arc::new(GlobalAvgPoolBackward { size: [1030, 1030], masked: false }), &x, &[&dy]);
    }
    cases
}
