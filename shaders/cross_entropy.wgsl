// Softmax cross entropy and its gradient: formulas in shared/cross_entropy.wgsl.
// One invocation computes one row. logits, dlogits: [images][channels], labels: [images of the batch],
// rows: [images] of (loss, rank of the label, predicted class, its probability); rows from step.images on are 0.
#import "shared/grid.wgsl"
#import "shared/cross_entropy.wgsl"

struct Params {
    images: u32,
    classes: u32,
    channels: u32,    // classes in memory
    smoothing: f32,   // share of the target that is spread over all classes
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
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
    rows[image] = loss_row(first, top, row_sum(first, top), labels[step.first_image + image]);
}

fn write_gradient(image: u32, scale: f32) {
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
        dlogits[first + k] = loss_gradient(first, k, top, sum, label, scale);
    }
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    write_gradient(workgroup_index(workgroup, count) * 64u + lane, 1.0);
}

// The gradient times the loss scale.
@compute @workgroup_size(64)
fn backward_scaled(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    write_gradient(workgroup_index(workgroup, count) * 64u + lane, loss_scale.scale);
}
