//! What the pooling layers share: their shape rule, the constants of their kernels and their windows on the host.

use crate::kernels::Pool2dParams;
use crate::shape::{Fact, Layout, ShapeError, Window, channels_in_memory};
use crate::tensor::Tensor;
use std::ops::Range;

/// `[N, C, H, W]` of an activation.
pub(super) fn activation_dims(fact: &Fact) -> Result<[usize; 4], ShapeError> {
    match (fact.layout, fact.shape.0.len()) {
        (Layout::Activation, 4) => Ok(fact.shape.four()),
        _ => Err(ShapeError::Mismatch { expected: "an activation".into(), got: fact.shape.to_string() }),
    }
}

/// Output of a pool. As in PyTorch, padding may be at most half the kernel: every window then holds a pixel.
pub(super) fn pooled(window: &Window, input: &Fact) -> Result<Fact, ShapeError> {
    let [n, c, h, w] = activation_dims(input)?;
    if (0..2).any(|axis| window.padding[axis] > window.kernel[axis] / 2) {
        return Err(ShapeError::Invalid(format!("a pool's padding may be at most half its kernel, got {window}")));
    }
    let [out_h, out_w] = window.output([h, w])?;
    Ok(Fact::activation(n, c, out_h, out_w))
}

/// Fails unless `got` has the expected shape and layout.
pub(super) fn expect(expected: &Fact, got: &Fact) -> Result<(), ShapeError> {
    if expected == got {
        return Ok(());
    }
    Err(ShapeError::Mismatch { expected: expected.shape.to_string(), got: got.shape.to_string() })
}

/// Constants of a pooling kernel (`shaders/shared/pool2d.wgsl`): the window, the facts of the pool's input and output,
/// and the `words` to write, `per_element` (1 or 4) of which are one element.
pub(super) fn pool_params(window: &Window, input: &Fact, output: &Fact, words: usize, per_element: usize) -> Pool2dParams {
    let [_, channels, in_h, in_w] = input.shape.four();
    let [_, _, out_h, out_w] = output.shape.four();
    Pool2dParams {
        elements: (words / per_element) as u32,
        channels: (channels_in_memory(channels) / per_element) as u32,
        in_h: in_h as u32,
        in_w: in_w as u32,
        out_h: out_h as u32,
        out_w: out_w as u32,
        kernel_h: window.kernel[0] as u32,
        kernel_w: window.kernel[1] as u32,
        stride_h: window.stride[0] as u32,
        stride_w: window.stride[1] as u32,
        pad_h: window.padding[0] as u32,
        pad_w: window.padding[1] as u32,
    }
}

/// Channels that kernels take at once: four where channels in memory allow.
pub(super) fn channels_at_once(fact: &Fact) -> usize {
    if channels_in_memory(fact.shape.four()[1]).is_multiple_of(4) { 4 } else { 1 }
}

/// The pixels along one axis that window number `at` covers.
pub(super) fn covered(window: &Window, axis: usize, at: usize, input: usize) -> Range<usize> {
    let start = at * window.stride[axis];
    let end = start + window.kernel[axis];
    start.saturating_sub(window.padding[axis])..end.saturating_sub(window.padding[axis]).min(input)
}

/// For references of masked gradients: zero where `mask`, where there is one, is not positive.
pub(super) fn masked(gradient: Tensor, mask: Option<&Tensor>) -> Tensor {
    match mask {
        Some(mask) => gradient.zip(mask, |dx, x| if x > 0.0 { dx } else { 0.0 }),
        None => gradient,
    }
}

/// Windows and inputs that break pools: no, one-sided and two-sided clipping, overlap, gaps, rounding up.
pub(super) fn shapes() -> Vec<(Window, [usize; 4])> {
    let uneven = Window { kernel: [2, 3], stride: [3, 1], padding: [1, 1], ceil_mode: false };
    vec![
        (Window::square(3, 2, 0), [2, 5, 11, 7]),
        (Window::square(3, 2, 0).ceil(), [1, 8, 8, 6]),
        (Window::square(3, 2, 1), [2, 3, 9, 8]),
        (uneven, [1, 1, 10, 6]),
        (uneven.ceil(), [3, 6, 9, 5]),
        (Window::square(2, 3, 1).ceil(), [1, 4, 2, 2]),
        (Window::square(5, 1, 2), [1, 13, 6, 7]),
        (Window::square(2, 4, 0), [2, 17, 9, 10]),
        (Window::square(6, 6, 0), [3, 2, 6, 6]),
        (Window::square(3, 1, 1).ceil(), [1, 7, 1, 1]),
    ]
}
