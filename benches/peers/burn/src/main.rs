//! Measures `nin` and `nin-cifar` in Burn: one JSON line for each case, as ../README.md says.
//!
//!     burn-peer --backend wgpu|flex --model nin|nin-cifar --mode train|infer --batch-size B
//!               [--steps N] [--budget-s S]
//!
//! Needs a Vulkan, Metal or DirectX 12 device for `wgpu`, nothing for `flex`. Burn tunes each new kernel and
//! shape before it first uses it; on a CPU device that takes minutes. What it found is kept in target/ for the
//! next run. A watchdog ends the program at the budget, with a line that says what was skipped.
//! Exit codes: 0 measured, or skipped with a line that says why; 1 failed; 2 usage.

use burn::nn::{
    Dropout, DropoutConfig, Initializer, PaddingConfig2d,
    conv::{Conv2d, Conv2dConfig},
    loss::CrossEntropyLossConfig,
    pool::{AdaptiveAvgPool2dConfig, AvgPool2dConfig, MaxPool2dConfig},
};
use burn::optim::{GradientsParams, SgdConfig};
use burn::prelude::*;
use burn::tensor::{Distribution, activation::relu};
use std::process::exit;
use std::time::{Duration, Instant};

const VERSION: &str = "0.22.1";

/// Channels in and out, kernel, stride and padding of each convolution.
#[rustfmt::skip]
const NIN: [[usize; 5]; 12] = [
    [1, 96, 11, 4, 0], [96, 96, 1, 1, 0], [96, 96, 1, 1, 0],
    [96, 256, 5, 1, 2], [256, 256, 1, 1, 0], [256, 256, 1, 1, 0],
    [256, 384, 3, 1, 1], [384, 384, 1, 1, 0], [384, 384, 1, 1, 0],
    [384, 10, 3, 1, 1], [10, 10, 1, 1, 0], [10, 10, 1, 1, 0],
];
#[rustfmt::skip]
const NIN_CIFAR: [[usize; 5]; 9] = [
    [3, 192, 5, 1, 2], [192, 160, 1, 1, 0], [160, 96, 1, 1, 0],
    [96, 192, 5, 1, 2], [192, 192, 1, 1, 0], [192, 192, 1, 1, 0],
    [192, 192, 3, 1, 1], [192, 192, 1, 1, 0], [192, 10, 1, 1, 0],
];

#[derive(Module, Debug)]
struct Nin {
    convolutions: Vec<Conv2d>,
    dropout: Dropout,
    cifar: bool,
}

impl Nin {
    fn new(cifar: bool, device: &Device) -> Self {
        let convolution = |&[i, o, k, s, p]: &[usize; 5]| {
            Conv2dConfig::new([i, o], [k, k])
                .with_stride([s, s])
                .with_padding(PaddingConfig2d::Explicit(p, p, p, p))
                .with_initializer(Initializer::KaimingUniform { gain: 1.0, fan_out_only: false })
                .init(device)
        };
        let layers: &[[usize; 5]] = if cifar { &NIN_CIFAR } else { &NIN };
        let convolutions = layers.iter().map(convolution).collect();
        Nin { convolutions, dropout: DropoutConfig::new(0.5).init(), cifar }
    }

    /// Dropout works only on a device with autodiff, that is, while training.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let max = || MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_ceil_mode(self.cifar).init();
        let average = || AvgPool2dConfig::new([3, 3]).with_strides([2, 2]).with_ceil_mode(true).with_count_include_pad(false).init();
        let mut x = images;
        for (i, convolution) in self.convolutions.iter().enumerate() {
            x = relu(convolution.forward(x));
            if i % 3 != 2 || i + 1 == self.convolutions.len() {
                continue;
            }
            x = if self.cifar && i == 5 { average().forward(x) } else { max().forward(x) };
            if self.cifar || i == 8 {
                x = self.dropout.forward(x);
            }
        }
        AdaptiveAvgPool2dConfig::new([1, 1]).init().forward(x).flatten(1, 3)
    }
}

struct Arguments {
    backend: String,
    model: String,
    mode: String,
    batch: usize,
    steps: usize,
    budget: f64,
}

fn usage(problem: &str) -> ! {
    eprintln!("burn-peer: {problem}");
    eprintln!("usage: burn-peer --backend wgpu|flex --model nin|nin-cifar --mode train|infer --batch-size B [--steps N] [--budget-s S]");
    exit(2)
}

fn arguments() -> Arguments {
    let mut a = Arguments { backend: "wgpu".into(), model: "nin".into(), mode: "train".into(), batch: 8, steps: 10, budget: 900.0 };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_else(|| usage(&format!("{flag} needs a value")));
        let number = || value.parse().unwrap_or_else(|_| usage(&format!("{flag} needs a number, not '{value}'")));
        match (flag.as_str(), value.as_str()) {
            ("--backend", "wgpu" | "flex") => a.backend = value,
            ("--model", "nin" | "nin-cifar") => a.model = value,
            ("--mode", "train" | "infer") => a.mode = value,
            ("--batch-size", _) => a.batch = number() as usize,
            ("--steps", _) => a.steps = number() as usize,
            ("--budget-s", _) => a.budget = number(),
            _ => usage(&format!("unknown: {flag} {value}")),
        }
    }
    if a.batch == 0 || a.steps == 0 {
        usage("--batch-size and --steps start at 1");
    }
    a
}

fn head(a: &Arguments, device: &str) -> String {
    format!(
        r#"{{"peer":"burn-{}","version":"{VERSION}","device":"{device}","model":"{}","mode":"{}","batch_size":{},"precision":"f32""#,
        a.backend, a.model, a.mode, a.batch
    )
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p).round() as usize]
}

fn main() {
    let a = arguments();
    let started = Instant::now();
    let plain = if a.backend == "wgpu" { Device::wgpu(Default::default()) } else { Device::flex() };
    let name = match plain.identity() {
        Some(identity) => identity.name.to_string(),
        None => format!("CPU, {} threads", std::thread::available_parallelism().map_or(1, |n| n.get())),
    };

    let skipped = format!(
        r#"{},"skipped":"still warming up or measuring after {} s: tuning of a cold run; raise --budget-s"}}"#,
        head(&a, &name),
        a.budget
    );
    let budget = Duration::from_secs_f64(a.budget);
    // Tuning cannot be interrupted from outside, so the watchdog ends the process.
    std::thread::spawn(move || {
        std::thread::sleep(budget + Duration::from_secs(5));
        println!("{skipped}");
        exit(0)
    });

    let train = a.mode == "train";
    let device = if train { plain.clone().autodiff() } else { plain.clone() };
    let cifar = a.model == "nin-cifar";
    let shape = if cifar { [a.batch, 3, 32, 32] } else { [a.batch, 1, 224, 224] };
    let images = Tensor::<4>::random(shape, Distribution::Uniform(0.0, 1.0), &device);
    let labels: Vec<i32> = (0..a.batch as i32).map(|i| i * 7 % 10).collect();
    let labels = Tensor::<1, Int>::from_ints(labels.as_slice(), &device);
    let mut model = Some(Nin::new(cifar, &device));
    let mut optimizer = SgdConfig::new().init();
    let loss_of = CrossEntropyLossConfig::new().init(&device);

    let mut last = f32::NAN;
    let mut step = || {
        let net = model.take().expect("a step puts the model back");
        let begun = Instant::now();
        let logits = net.forward(images.clone());
        let result = if train {
            let loss = loss_of.forward(logits, labels.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            model = Some(optimizer.step(0.001, net, gradients));
            loss
        } else {
            model = Some(net);
            logits.sum()
        };
        // Reading drains the fusion queue; the update of the weights comes behind it.
        last = result.into_scalar::<f32>();
        if let Err(error) = plain.sync() {
            eprintln!("burn-peer: {error}");
            exit(1)
        }
        begun.elapsed().as_secs_f64() * 1e3
    };

    let first = step();
    eprintln!("burn-peer: first step {:.1} s, tuning included", first / 1e3);
    // Tuning comes step by step; the second and third are still slower.
    step();
    step();
    let warm = started.elapsed();
    let mut times = Vec::new();
    while times.len() < a.steps && (times.len() < 3 || started.elapsed() < budget) {
        times.push(step());
    }
    if !last.is_finite() {
        eprintln!("burn-peer: the result is {last}");
        exit(1)
    }
    times.sort_by(f64::total_cmp);
    let median = percentile(&times, 0.5);
    println!(
        r#"{},"images_per_s":{:.3},"ms_per_step":{median:.4},"ms_p10":{:.4},"ms_p90":{:.4},"samples":{},"first_step_s":{:.2},"warm_up_s":{:.2}}}"#,
        head(&a, &name),
        a.batch as f64 * 1e3 / median,
        percentile(&times, 0.1),
        percentile(&times, 0.9),
        times.len(),
        first / 1e3,
        warm.as_secs_f64()
    );
    // The watchdog's thread and the device's threads need no joining.
    exit(0)
}
