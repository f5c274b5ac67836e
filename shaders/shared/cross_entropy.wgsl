// Softmax cross entropy of a row of logits: loss = log(sum_j exp(x_j - max x)) - sum_k t_k (x_k - max x), and its gradient for
// the mean over the batch: dx_k = (softmax(x)_k - t_k) / images of the batch. The target is t_k = [k = label], with label
// smoothing t_k = (1 - params.smoothing) [k = label] + params.smoothing / classes (Szegedy et al. 2015, arXiv 1512.00567).
//
// The rank counts the classes that a sort by falling logit, ties by index, puts before the label: 0 is a top-1 hit,
// below 5 a top-5 hit. Labels must be below `classes`.
#import "shared/nan.wgsl"
#import "shared/softmax.wgsl"
#import "shared/step.wgsl"
#import "shared/loss_scale.wgsl"

@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(3) var<storage, read> labels: array<u32>;
@group(0) @binding(4) var<storage, read_write> rows: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> loss_scale: LossScale;

// (loss, rank of the label, predicted class, its probability or -1 among logits that are not numbers: never 0)
fn loss_row(first: u32, top: f32, sum: f32, label: u32) -> vec4<f32> {
    let target_logit = logits[first + label];
    var rank = 0u;
    var predicted = 0u;
    var best = logits[first];
    var below_top = 0.0;
    for (var k = 0u; k < params.classes; k++) {
        let value = logits[first + k];
        if value > best {
            best = value;
            predicted = k;
        }
        if value > target_logit || (value == target_logit && k < label) {
            rank += 1u;
        }
        below_top += value - top;
    }
    var loss = log(sum) - (target_logit - top);
    if params.smoothing > 0.0 {
        let mean = below_top / f32(params.classes);
        loss = log(sum) - ((1.0 - params.smoothing) * (target_logit - top) + params.smoothing * mean);
    }
    // Nothing is a hit among logits that are not numbers.
    rank = select(rank, params.classes, is_nan(loss));
    let confidence = select(1.0 / sum, -1.0, is_nan(loss));
    return vec4<f32>(loss, f32(rank), f32(predicted), confidence);
}

// `scale` is 1, or that of loss scaling.
fn loss_gradient(first: u32, k: u32, top: f32, sum: f32, label: u32, scale: f32) -> f32 {
    let spread = params.smoothing / f32(params.classes);
    let target_share = select(spread, 1.0 - params.smoothing + spread, k == label);
    let gradient = (probability(first, k, top, sum) - target_share) / f32(step.total_images);
    return select(0.0, gradient * scale, k < params.classes);
}
