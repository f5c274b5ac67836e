// Probabilities from logits: y_k = exp(x_k - max x) / sum_j exp(x_j - max x).
// One invocation computes one row. logits, y: [images][channels]; lanes from `classes` on are 0.
#import "shared/grid.wgsl"
#import "shared/softmax.wgsl"

struct Params {
    images: u32,
    classes: u32,
    channels: u32,    // classes in memory
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let image = workgroup_index(workgroup, count) * 64u + lane;
    if image >= params.images {
        return;
    }
    let first = image * params.channels;
    let top = row_maximum(first);
    let sum = row_sum(first, top);
    for (var k = 0u; k < params.channels; k++) {
        y[first + k] = probability(first, k, top, sum);
    }
}
