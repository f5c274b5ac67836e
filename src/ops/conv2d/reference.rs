//! Convolution in double precision, straight from the definition: six nested loops over logical indices.

use crate::shape::Shape;
use crate::shape::Window;
use crate::tensor::Tensor;

/// Calls `f(input index, weight index, output index)` for every product of the convolution of `x` with `weight`.
fn for_each_product(window: &Window, x: &Shape, weight: &Shape, y: &Shape, mut f: impl FnMut(usize, usize, usize)) {
    let [_, channels, height, width] = x.four();
    let [_, _, kh, kw] = weight.four();
    let [batch, outputs, oh, ow] = y.four();
    for n in 0..batch {
        for o in 0..outputs {
            for i in 0..oh {
                for j in 0..ow {
                    let to = ((n * outputs + o) * oh + i) * ow + j;
                    for k in 0..kh {
                        let Some(row) = (i * window.stride[0] + k).checked_sub(window.padding[0]).filter(|r| *r < height) else { continue };
                        for l in 0..kw {
                            let Some(column) = (j * window.stride[1] + l).checked_sub(window.padding[1]).filter(|c| *c < width) else {
                                continue;
                            };
                            for c in 0..channels {
                                f(((n * channels + c) * height + row) * width + column, ((o * channels + c) * kh + k) * kw + l, to);
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn forward(window: &Window, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let [n, _, h, w] = x.shape.four();
    let [o, ..] = weight.shape.four();
    let [oh, ow] = window.output([h, w]).unwrap_or([0, 0]);
    let mut y = Tensor::zeros(&Shape::nchw(n, o, oh, ow));
    for (index, value) in y.data.iter_mut().enumerate() {
        *value = bias.data[index / (oh * ow) % o];
    }
    let shape = y.shape.clone();
    for_each_product(window, &x.shape, &weight.shape, &shape, |from, by, to| y.data[to] += x.data[from] * weight.data[by]);
    y
}

pub(super) fn backward_input(window: &Window, input: [usize; 2], dy: &Tensor, weight: &Tensor) -> Tensor {
    let [n, ..] = dy.shape.four();
    let [_, c, ..] = weight.shape.four();
    let mut dx = Tensor::zeros(&Shape::nchw(n, c, input[0], input[1]));
    let shape = dx.shape.clone();
    for_each_product(window, &shape, &weight.shape, &dy.shape, |from, by, to| dx.data[from] += dy.data[to] * weight.data[by]);
    dx
}

pub(super) fn backward_weight(window: &Window, x: &Tensor, dy: &Tensor) -> (Tensor, Tensor) {
    let [_, c, ..] = x.shape.four();
    let [_, o, oh, ow] = dy.shape.four();
    let mut dweight = Tensor::zeros(&Shape(vec![o, c, window.kernel[0], window.kernel[1]]));
    let mut dbias = Tensor::zeros(&Shape(vec![o]));
    let shape = dweight.shape.clone();
    for_each_product(window, &x.shape, &shape, &dy.shape, |from, by, to| dweight.data[by] += x.data[from] * dy.data[to]);
    for (index, value) in dy.data.iter().enumerate() {
        dbias.data[index / (oh * ow) % o] += value;
    }
    (dweight, dbias)
}
