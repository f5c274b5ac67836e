// Mean over all pixels of a channel: y = sum of x / pixels; its gradient: dx = dy / pixels.
// One invocation computes one element of y, or of dx.
// x, dx: [images][height][width][channels]; y, dy: [images][channels].
#import "shared/grid.wgsl"
#import "shared/global_avg_pool.wgsl"

struct Params {
    words: u32,       // elements the entry point writes
    channels: u32,    // in memory
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<${ELEMENT}>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<${ELEMENT}>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        y[i] = channel_mean(i / params.channels, i % params.channels);
    }
}

fn gradient(i: u32) -> f32 {
    let pixels = params.height * params.width;
    let image = i / (pixels * params.channels);
    return dy[image * params.channels + i % params.channels] / f32(pixels);
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        dx[i] = ${ELEMENT}(gradient(i));
    }
}

// dx = 0 where x <= 0: the gradient of a ReLU before the pool, too.
@compute @workgroup_size(64)
fn backward_masked(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        dx[i] = ${ELEMENT}(select(0.0, gradient(i), x[i] > 0.0));
    }
}
