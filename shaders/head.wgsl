// The end of a network in one kernel: mean over all pixels of each channel, then softmax, or cross entropy and the gradient
// of the batch's mean loss with respect to the map. The arithmetic is that of global_avg_pool.wgsl, softmax.wgsl and
// cross_entropy.wgsl: results are the same bit for bit.
// A workgroup takes one image. x, dx: [images][height][width][channels]; logits (scratch), y: [images][channels];
// labels: [images of the batch]; rows: [images], see cross_entropy.wgsl.
#import "shared/grid.wgsl"
#import "shared/global_avg_pool.wgsl"
#import "shared/cross_entropy.wgsl"

struct Params {
    images: u32,
    classes: u32,
    channels: u32,    // classes in memory
    height: u32,
    width: u32,
    masked: u32,      // 1: dx = 0 where x <= 0, the gradient of a ReLU before the pool, too
    smoothing: f32,   // share of the target that is spread over all classes
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;
@group(0) @binding(5) var<storage, read> x: array<${ELEMENT}>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read_write> dx: array<${ELEMENT}>;

fn pool(image: u32, lane: u32) {
    for (var channel = lane; channel < params.channels; channel += 64u) {
        logits[image * params.channels + channel] = channel_mean(image, channel);
    }
    storageBarrier();
}

@compute @workgroup_size(64)
fn softmax(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let image = workgroup_index(workgroup, count);
    if image >= params.images {
        return;
    }
    pool(image, lane);
    let first = image * params.channels;
    let top = row_maximum(first);
    let sum = row_sum(first, top);
    for (var k = lane; k < params.channels; k += 64u) {
        y[first + k] = probability(first, k, top, sum);
    }
}

@compute @workgroup_size(64)
fn loss(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let image = workgroup_index(workgroup, count);
    if image >= params.images {
        return;
    }
    pool(image, lane);
    if lane > 0u {
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

fn write_loss_and_gradient(image: u32, lane: u32, scale: f32) {
    pool(image, lane);
    let first = image * params.channels;
    let pixels = params.height * params.width;
    let words = pixels * params.channels;
    if image >= step.images {
        if lane == 0u {
            rows[image] = vec4<f32>();
        }
        for (var i = lane; i < words; i += 64u) {
            dx[image * words + i] = ${ELEMENT}(0.0);
        }
        return;
    }
    let top = row_maximum(first);
    let sum = row_sum(first, top);
    let label = labels[step.first_image + image];
    if lane == 0u {
        rows[image] = loss_row(first, top, sum, label);
    }
    for (var i = lane; i < words; i += 64u) {
        let gradient = loss_gradient(first, i % params.channels, top, sum, label, scale) / f32(pixels);
        dx[image * words + i] = ${ELEMENT}(select(gradient, 0.0, params.masked != 0u && !(f32(x[image * words + i]) > 0.0)));
    }
}

@compute @workgroup_size(64)
fn loss_and_gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let image = workgroup_index(workgroup, count);
    if image >= params.images {
        return;
    }
    write_loss_and_gradient(image, lane, 1.0);
}

// The gradient times the loss scale.
@compute @workgroup_size(64)
fn loss_and_gradient_scaled(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let image = workgroup_index(workgroup, count);
    if image >= params.images {
        return;
    }
    write_loss_and_gradient(image, lane, loss_scale.scale);
}
