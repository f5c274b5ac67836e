// Stochastic gradient descent as PyTorch's SGD: g' = g + weight_decay w; v = momentum v + g';
// w = w - lr v, with Nesterov w = w - lr (g' + momentum v).
// One invocation updates one scalar. parameters, gradients, velocity: [words]; velocity starts at zero. lr and weight_decay are
// multiplied by those of the scalar's block: multipliers.
#import "shared/grid.wgsl"
#import "shared/step.wgsl"
#import "shared/loss_scale.wgsl"
#import "shared/multipliers.wgsl"

struct Params {
    words: u32,
    momentum: f32,
    nesterov: u32,        // 1: yes
    weight_decay: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(3) var<storage, read> gradients: array<f32>;
@group(0) @binding(4) var<storage, read_write> velocity: array<f32>;
@group(0) @binding(5) var<storage, read> loss_scale: LossScale;
@group(0) @binding(6) var<storage, read> multipliers: array<vec2<f32>>;

// Without momentum nothing is kept.
fn move_plainly(i: u32, gradient: f32) {
    let w = parameters[i];
    let multiplier = multipliers[i / WORDS_OF_A_BLOCK];
    let g = gradient + params.weight_decay * multiplier.y * w;
    parameters[i] = w - step.learning_rate * multiplier.x * g;
}

fn move_with_momentum(i: u32, gradient: f32) {
    let w = parameters[i];
    let multiplier = multipliers[i / WORDS_OF_A_BLOCK];
    let g = gradient + params.weight_decay * multiplier.y * w;
    let v = params.momentum * velocity[i] + g;
    velocity[i] = v;
    let direction = select(v, g + params.momentum * v, params.nesterov != 0u);
    parameters[i] = w - step.learning_rate * multiplier.x * direction;
}

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        move_plainly(i, gradients[i]);
    }
}

@compute @workgroup_size(64)
fn update_with_momentum(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        move_with_momentum(i, gradients[i]);
    }
}

// Gradients times the loss scale; nothing changes in a step with an overflow.
@compute @workgroup_size(64)
fn update_scaled(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words && loss_scale.overflow == 0u {
        move_plainly(i, gradients[i] * loss_scale.inverse);
    }
}

@compute @workgroup_size(64)
fn update_with_momentum_scaled(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words && loss_scale.overflow == 0u {
        move_with_momentum(i, gradients[i] * loss_scale.inverse);
    }
}
