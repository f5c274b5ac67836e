//! Convolution in double precision, straight from the definition: six nested loops over logical indices.

use super::{Direction, ShapeCase};
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

/// One element of an output in double precision, and the sum of the magnitudes of what it adds up; all by places in
/// device memory, where no channel is padding.
pub(super) fn element(
    shape: &ShapeCase,
    direction: Direction,
    output: usize,
    index: usize,
    value: impl Fn(usize, usize) -> f64,
) -> [f64; 2] {
    let ShapeCase { batch, input: [c, h, w], outputs: o, window } = *shape;
    let Ok([oh, ow]) = window.output([h, w]) else { return [f64::NAN; 2] };
    let ([kh, kw], [sh, sw], [ph, pw]) = (window.kernel, window.stride, window.padding);
    let weight = |k: usize, l: usize, from: usize, to: usize| ((k * kw + l) * c + from) * o + to;
    let x_at = |n: usize, row: usize, column: usize| ((n * h + row) * w + column) * c;
    let y_at = |n: usize, i: usize, j: usize| ((n * oh + i) * ow + j) * o;
    let mut sums = [0.0, 0.0];
    let mut add = |product: f64| sums = [sums[0] + product, sums[1] + product.abs()];
    match direction {
        Direction::Forward(relu) => {
            let (to, pixel) = (index % o, index / o);
            let (n, i, j) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            add(value(2, to));
            for (k, l) in (0..kh).flat_map(|k| (0..kw).map(move |l| (k, l))) {
                let row = (i * sh + k).checked_sub(ph).filter(|row| *row < h);
                let column = (j * sw + l).checked_sub(pw).filter(|column| *column < w);
                let (Some(row), Some(column)) = (row, column) else { continue };
                let first = x_at(n, row, column);
                (0..c).for_each(|from| add(value(0, first + from) * value(1, weight(k, l, from, to))));
            }
            if relu {
                sums[0] = sums[0].max(0.0);
            }
        }
        Direction::BackwardInput(mask) => {
            let (from, pixel) = (index % c, index / c);
            let (n, row, column) = (pixel / (h * w), pixel / w % h, pixel % w);
            for (k, l) in (0..kh).flat_map(|k| (0..kw).map(move |l| (k, l))) {
                let i = (row + ph).checked_sub(k).filter(|i| i.is_multiple_of(sh) && i / sh < oh);
                let j = (column + pw).checked_sub(l).filter(|j| j.is_multiple_of(sw) && j / sw < ow);
                let (Some(i), Some(j)) = (i, j) else { continue };
                let first = y_at(n, i / sh, j / sw);
                (0..o).for_each(|to| add(value(0, first + to) * value(1, weight(k, l, from, to))));
            }
            // Not `<=`: what cannot be compared with zero is not positive.
            if mask && !(value(2, index) > 0.0) {
                sums[0] = 0.0;
            }
        }
        Direction::BackwardWeight => {
            let (to, rest) = (index % o, index / o);
            let (from, k, l) = (rest % c, rest / c / kw, rest / c % kw);
            for n in 0..batch {
                for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
                    let dy = value(1, y_at(n, i, j) + to);
                    if output == 1 {
                        add(dy);
                        continue;
                    }
                    let row = (i * sh + k).checked_sub(ph).filter(|row| *row < h);
                    let column = (j * sw + l).checked_sub(pw).filter(|column| *column < w);
                    let (Some(row), Some(column)) = (row, column) else { continue };
                    add(value(0, x_at(n, row, column) + from) * dy);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::real_case;
    use crate::shape::Fact;

    #[test]
    fn single_elements_are_those_of_the_whole() {
        let window = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 1], ceil_mode: false };
        let shape = ShapeCase { batch: 2, input: [4, 7, 6], outputs: 8, window };
        for direction in Direction::ALL {
            let case = real_case(&shape, direction);
            let facts: Vec<&Fact> = case.inputs.iter().map(|(fact, _)| fact).collect();
            let outputs = case.op.outputs(&facts).unwrap();
            let tensors = case
                .inputs
                .iter()
                .map(|(fact, values)| Tensor { shape: fact.shape.clone(), data: values.iter().map(|v| f64::from(*v)).collect() });
            let expected = case.op.reference(&tensors.collect::<Vec<_>>(), &case.step);
            let memories: Vec<Vec<f32>> = case.inputs.iter().map(|(fact, values)| fact.pack(values)).collect();
            for (output, fact) in outputs.iter().enumerate() {
                let elements = (0..fact.words()).map(|index| {
                    let [sum, magnitudes] = element(&shape, direction, output, index, |input, at| f64::from(memories[input][at]));
                    assert!(sum.abs() <= magnitudes);
                    sum as f32
                });
                let got = fact.unpack(&elements.collect::<Vec<_>>());
                for (got, want) in got.iter().zip(&expected[output].data) {
                    assert!((f64::from(*got) - want).abs() < 1e-5, "{direction:?} output {output}: {got} {want}");
                }
            }
        }
    }
}
