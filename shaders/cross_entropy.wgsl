// Softmax cross entropy: loss = log(sum_j exp(x_j - max x)) - (x_label - max x), and its gradient for the mean over the
// batch: dx_k = (softmax(x)_k - [k = label]) / images of the batch.
// One invocation computes one row. logits, dlogits: [images][channels], labels: [images of the batch],
// rows: [images] of (loss, rank of the label, predicted class, 1); rows from step.images on are 0.
//
// The rank counts the classes that a sort by falling logit, ties by index, puts before the label: 0 is a top-1 hit,
// below 5 a top-5 hit. Labels must be below `classes`.
#import "shared/grid.wgsl"
#import "shared/nan.wgsl"
#import "shared/softmax.wgsl"
#import "shared/step.wgsl"

struct Params {
    images: u32,
    classes: u32,
    channels: u32,    // classes in memory
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(3) var<storage, read> labels: array<u32>;
@group(0) @binding(4) var<storage, read_write> rows: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dlogits: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let image = workgroup_index(workgroup, count) * 64u + lane;
    if image >= params.images {
        return;
    }
    if image >= step.images {
        rows[image] = vec4<f32>();
        return;
    }
    let first = image * params.channels;
    let top = row_maximum(first);
    let label = labels[step.first_image + image];
    let target_logit = logits[first + label];
    let loss = log(row_sum(first, top)) - (target_logit - top);

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
    rows[image] = vec4<f32>(loss, f32(rank), f32(predicted), 1.0);
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let image = workgroup_index(workgroup, count) * 64u + lane;
    if image >= params.images {
        return;
    }
    let first = image * params.channels;
    if image >= step.images {
        for (var k = 0u; k < params.channels; k++) {
            dlogits[first + k] = 0.0;
        }
        return;
    }
    let top = row_maximum(first);
    let sum = row_sum(first, top);
    let label = labels[step.first_image + image];
    for (var k = 0u; k < params.channels; k++) {
        let probability = exp(logits[first + k] - top) / sum;
        let gradient = (probability - select(0.0, 1.0, k == label)) / f32(step.total_images);
        dlogits[first + k] = select(0.0, gradient, k < params.classes);
    }
}
