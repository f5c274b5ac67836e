//! What the weighted sum of a convolution's results must be, without computing the results.
//!
//! For weights `u` of rows and `v` of channels the sum over all results, of which each is a sum of products, is a sum over the
//! reduction of two factors: for forward, sum over (tap, c) of (sum over pixels of u x) (sum over channels of v w). That is
//! exact modulo 2^32, and takes as many steps as one channel of the convolution.

use nin_wgpu::gpu::tuner::{folder::weight_of, whole_period};
use nin_wgpu::kernels::Problem;

/// An input's elements, as whole numbers modulo 2^32: a period, with its beginning once more behind it.
struct Values {
    period: usize,
    extended: Vec<u32>,
}

/// Most elements that are looked at in one piece: channels of a pixel, or a row of the filter.
const MOST_CHANNELS: usize = 4096;

impl Values {
    fn of_input(index: usize, radius: u32) -> Self {
        let values: Vec<u32> = whole_period(index, radius).iter().map(|value| *value as i32 as u32).collect();
        let extended = values.iter().chain(&values[..MOST_CHANNELS]).copied().collect();
        Values { period: values.len(), extended }
    }

    fn row(&self, number: usize, channels: usize) -> &[u32] {
        let first = number * channels % self.period;
        &self.extended[first..first + channels]
    }

    /// The sum of a row's elements, each times the weight of its channel.
    fn weighted(&self, number: usize, channel_weights: &[u32]) -> u32 {
        dot(self.row(number, channel_weights.len()), channel_weights)
    }
}

fn dot(a: &[u32], b: &[u32]) -> u32 {
    a.iter().zip(b).fold(0, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)))
}

fn add_scaled(to: &mut [u32], row: &[u32], factor: u32) {
    to.iter_mut().zip(row).for_each(|(to, value)| *to = to.wrapping_add(value.wrapping_mul(factor)));
}

fn channel_weights(channels: usize) -> Vec<u32> {
    (0..channels as u32).map(|channel| weight_of(!channel)).collect()
}

/// A problem's sizes.
struct Sizes {
    batch: usize,
    in_c: usize,
    input: [usize; 2],
    output: [usize; 2],
    out_c: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl Sizes {
    fn of(problem: &Problem) -> Self {
        let Problem { batch, input: [in_c, h, w], outputs, kernel, stride, padding, .. } = *problem;
        let out = |size: usize, axis: usize| (size + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1;
        Sizes { batch, in_c, input: [h, w], output: [out(h, 0), out(w, 1)], out_c: outputs, kernel, stride, padding }
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Calls `meet(output pixel, tap, input pixel)` for every pair of pixels that meet.
    fn for_each_meeting(&self, mut meet: impl FnMut(usize, usize, usize)) {
        let [oh, ow] = self.output;
        let [h, w] = self.input;
        for pixel in 0..self.batch * oh * ow {
            let (image, row, column) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            for tap in 0..self.taps() {
                let place = |at: usize, step: usize, axis: usize| (at * self.stride[axis] + step).checked_sub(self.padding[axis]);
                let met = (place(row, tap / self.kernel[1], 0), place(column, tap % self.kernel[1], 1));
                if let (Some(y), Some(x)) = met
                    && y < h
                    && x < w
                {
                    meet(pixel, tap, (image * h + y) * w + x);
                }
            }
        }
    }
}

/// The sums for a problem's outputs where its inputs hold whole numbers up to `radius`.
pub fn expected_sums(problem: &Problem, radius: u32) -> Vec<u32> {
    let sizes = Sizes::of(problem);
    let input = |index: usize| Values::of_input(index, radius);
    match problem.op.as_str() {
        "conv2d" => vec![forward(&sizes, &input(0), &input(1), &input(2))],
        "conv2d_backward_input" => vec![backward_input(&sizes, &input(0), &input(1))],
        "conv2d_backward_weight" => backward_weight(&sizes, &input(0), &input(1)),
        other => unreachable!("{other} is no linear map of its inputs"),
    }
}

fn forward(sizes: &Sizes, x: &Values, weight: &Values, bias: &Values) -> u32 {
    let v = channel_weights(sizes.out_c);
    let mut of_x = vec![0u32; sizes.taps() * sizes.in_c];
    sizes.for_each_meeting(|pixel, tap, met| {
        add_scaled(&mut of_x[tap * sizes.in_c..][..sizes.in_c], x.row(met, sizes.in_c), weight_of(pixel as u32));
    });
    let products = of_x.iter().enumerate().fold(0u32, |sum, (row, of_x)| sum.wrapping_add(of_x.wrapping_mul(weight.weighted(row, &v))));
    let pixels = sizes.batch * sizes.output[0] * sizes.output[1];
    let of_pixels = (0..pixels as u32).fold(0u32, |sum, pixel| sum.wrapping_add(weight_of(pixel)));
    products.wrapping_add(of_pixels.wrapping_mul(bias.weighted(0, &v)))
}

fn backward_input(sizes: &Sizes, dy: &Values, weight: &Values) -> u32 {
    let mut of_dy = vec![0u32; sizes.taps() * sizes.out_c];
    sizes.for_each_meeting(|pixel, tap, met| {
        add_scaled(&mut of_dy[tap * sizes.out_c..][..sizes.out_c], dy.row(pixel, sizes.out_c), weight_of(met as u32));
    });
    let mut sum = 0u32;
    for tap in 0..sizes.taps() {
        let mut of_weight = vec![0u32; sizes.out_c];
        for (channel, factor) in channel_weights(sizes.in_c).into_iter().enumerate() {
            add_scaled(&mut of_weight, weight.row(tap * sizes.in_c + channel, sizes.out_c), factor);
        }
        sum = sum.wrapping_add(dot(&of_dy[tap * sizes.out_c..][..sizes.out_c], &of_weight));
    }
    sum
}

fn backward_weight(sizes: &Sizes, x: &Values, dy: &Values) -> Vec<u32> {
    let v = channel_weights(sizes.out_c);
    let u: Vec<u32> = (0..(sizes.taps() * sizes.in_c) as u32).map(weight_of).collect();
    let pixels = sizes.batch * sizes.output[0] * sizes.output[1];
    let mut of_x = vec![0u32; pixels];
    sizes.for_each_meeting(|pixel, tap, met| {
        of_x[pixel] = of_x[pixel].wrapping_add(dot(x.row(met, sizes.in_c), &u[tap * sizes.in_c..][..sizes.in_c]));
    });
    let of_dy: Vec<u32> = (0..pixels).map(|pixel| dy.weighted(pixel, &v)).collect();
    let bias = of_dy.iter().fold(0u32, |sum, of_dy| sum.wrapping_add(*of_dy)).wrapping_mul(weight_of(0));
    vec![dot(&of_x, &of_dy), bias]
}
