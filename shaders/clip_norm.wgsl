// Limits the norm of all gradients together, as PyTorch's clip_grad_norm_: g = g * min(1, max_norm / (|g| + 1e-6)).
//   squares   partial sums of squares: a workgroup adds WORDS_EACH gradients a lane and its lanes in a tree,
//             partials: [groups]
//   factor    one workgroup adds the partial sums and writes clip: (factor, norm)
//   apply     gradients * factor, in place
// The order of every sum is fixed. gradients: [words].
#import "shared/grid.wgsl"
#import "shared/loss_scale.wgsl"

#define WORDS_EACH 32
#define THREADS 64

struct Params {
    words: u32,
    groups: u32,       // partial sums
    max_norm: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradients: array<f32>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;
@group(0) @binding(3) var<storage, read_write> clip: vec2<f32>;
@group(0) @binding(4) var<storage, read> loss_scale: LossScale;
@group(0) @binding(5) var<storage, read_write> clipped: array<f32>;

var<workgroup> sums: array<f32, ${THREADS}>;

// The sum over all lanes of what each brings, in a tree; for lane 0.
fn add_lanes(lane: u32, value: f32) -> f32 {
    sums[lane] = value;
    for (var half = ${THREADS / 2}u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            sums[lane] += sums[lane + half];
        }
    }
    return sums[0];
}

@compute @workgroup_size(${THREADS})
fn squares(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup_index(workgroup, count);
    let first = group * ${THREADS * WORDS_EACH}u + lane;
    var sum = 0.0;
#for k in 0..WORDS_EACH
    let i_${k} = first + ${THREADS * k}u;
    if i_${k} < params.words {
        sum += gradients[i_${k}] * gradients[i_${k}];
    }
#end
    let total = add_lanes(lane, sum);
    if lane == 0u && group < params.groups {
        partials[group] = total;
    }
}

fn write_factor(lane: u32, inverse_scale: f32) {
    var sum = 0.0;
    for (var i = lane; i < params.groups; i += ${THREADS}u) {
        sum += partials[i];
    }
    let total = add_lanes(lane, sum);
    if lane == 0u {
        let norm = sqrt(total) * inverse_scale;
        clip = vec2<f32>(min(1.0, params.max_norm / (norm + 1e-6)), norm);
    }
}

@compute @workgroup_size(${THREADS})
fn factor(@builtin(local_invocation_index) lane: u32) {
    write_factor(lane, 1.0);
}

// Gradients times the loss scale: the norm without it counts.
@compute @workgroup_size(${THREADS})
fn factor_scaled(@builtin(local_invocation_index) lane: u32) {
    write_factor(lane, loss_scale.inverse);
}

@compute @workgroup_size(${THREADS})
fn apply(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * ${THREADS}u + lane;
    if i < params.words && clip.x < 1.0 {
        clipped[i] *= clip.x;
    }
}
