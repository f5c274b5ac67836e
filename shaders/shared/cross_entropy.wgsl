// Softmax cross entropy of a row of logits: loss = log(sum_j exp(x_j - max x)) - (x_label - max x), and its gradient for the
// mean over the batch: dx_k = (softmax(x)_k - [k = label]) / images of the batch.
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
    let loss = log(sum) - (target_logit - top);
    var rank = 0u;
    var predicted = 0u;
    var best = logits[first];
    for (var k = 0u; k < params.classes; k++) {
        let value = logits[first + k];
        if value > best {
            best = value;
            predicted = k;
        }
        if value > target_logit || (value == target_logit && k < label) {
            rank += 1u;
        }
    }
    // Nothing is a hit among logits that are not numbers.
    rank = select(rank, params.classes, is_nan(loss));
    let confidence = select(1.0 / sum, -1.0, is_nan(loss));
    return vec4<f32>(loss, f32(rank), f32(predicted), confidence);
}

// `scale` is 1, or that of loss scaling.
fn loss_gradient(first: u32, k: u32, top: f32, sum: f32, label: u32, scale: f32) -> f32 {
    let gradient = (probability(first, k, top, sum) - select(0.0, 1.0, k == label)) / f32(step.total_images);
    return select(0.0, gradient * scale, k < params.classes);
}
