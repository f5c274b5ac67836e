//! Sums over a micro-batch that stay on the device until somebody wants to print them.

use super::random_reals;
use crate::graph::{Case, Lowered, Lowering, Op, Operand, Tolerance};
use crate::kernels::{Step, metrics};
use crate::shape::{Fact, Shape, ShapeError};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Writes (sum of losses, top-1 hits, top-5 hits, images) of the `[N, 4]` rows of
/// [`SoftmaxCrossEntropy`](super::SoftmaxCrossEntropy) to entry `step.metrics_slot` of a `[ring, 4]` value. Other entries
/// are left alone, so the output must be kept from step to step ([`crate::graph::ValueKind::State`]).
#[derive(Debug)]
pub struct Metrics {
    /// Entries of the ring: how many micro-batches may pass before the host reads.
    pub ring: usize,
}

impl Op for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn attributes(&self) -> String {
        format!("ring {}", self.ring)
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        match inputs[0].shape.0[..] {
            [_, 4] => Ok(vec![Fact::plain(&[self.ring, 4])]),
            _ => Err(ShapeError::Mismatch { expected: "Nx4 rows".into(), got: inputs[0].shape.to_string() }),
        }
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let params = metrics::Params { images: node.inputs[0].shape.0[0] as u32, ..Default::default() };
        metrics::forward(params, Operand::Input(0), Operand::Output(0), 1).into()
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let mut output = Tensor::zeros(&Shape(vec![self.ring, 4]));
        let entry = step.metrics_slot as usize * 4;
        for row in inputs[0].data.chunks(4).filter(|row| row[3] != 0.0) {
            output.data[entry] += row[0];
            output.data[entry + 1] += if row[1] < 1.0 { 1.0 } else { 0.0 };
            output.data[entry + 2] += if row[1] < 5.0 { 1.0 } else { 0.0 };
            output.data[entry + 3] += 1.0;
        }
        vec![output]
    }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let case = |name: &str, images: usize, valid: usize, ring: usize, slot: u32| {
        let losses = random_reals(&Shape(vec![images]), 1);
        let row = |(n, loss): (usize, f32)| if n < valid { [loss + 2.0, (n % 7) as f32, 3.0, 1.0 / (1 + n % 3) as f32] } else { [0.0; 4] };
        Case {
            name: name.into(),
            op: Arc::new(Metrics { ring }),
            inputs: vec![(Fact::plain(&[images, 4]), losses.into_iter().enumerate().flat_map(row).collect())],
            step: Step { metrics_slot: slot, images: valid as u32, total_images: valid as u32, ..Default::default() },
            tolerance: vec![Tolerance::Sum { factor: 8.0 }],
        }
    };
    vec![case("1 image", 1, 1, 1, 0), case("127 images", 127, 127, 4, 2), case("1024 images, 1000 valid", 1024, 1000, 3, 2)]
}
