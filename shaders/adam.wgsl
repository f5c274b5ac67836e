// Adam as PyTorch's, weight decay in its L2 form: g' = g + weight_decay w; m = m + (1 - beta1) (g' - m);
// v = beta2 v + (1 - beta2) g'^2; w = w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon).
// Decoupled, as PyTorch's AdamW: g' = g, and w = w (1 - lr weight_decay) before the update.
// One invocation updates one scalar. parameters, gradients, exp_avg (m), exp_avg_sq (v): [words]; m, v start at zero. lr and
// weight_decay are multiplied by those of the scalar's block: multipliers.
#import "shared/grid.wgsl"
#import "shared/step.wgsl"
#import "shared/loss_scale.wgsl"
#import "shared/multipliers.wgsl"

struct Params {
    words: u32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    decoupled: u32,       // 1: AdamW
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(3) var<storage, read> gradients: array<f32>;
@group(0) @binding(4) var<storage, read_write> exp_avg: array<f32>;
@group(0) @binding(5) var<storage, read_write> exp_avg_sq: array<f32>;
@group(0) @binding(6) var<storage, read> loss_scale: LossScale;
@group(0) @binding(7) var<storage, read> multipliers: array<vec2<f32>>;

fn move_parameter(i: u32, gradient: f32, bias_correction1: f32, bias_correction2: f32) {
    let multiplier = multipliers[i / WORDS_OF_A_BLOCK];
    let rate = step.learning_rate * multiplier.x;
    let weight_decay = params.weight_decay * multiplier.y;
    let before = parameters[i];
    let is_decoupled = params.decoupled != 0u;
    let g = select(gradient + weight_decay * before, gradient, is_decoupled);
    let w = select(before, before * (1.0 - rate * weight_decay), is_decoupled);
    let m = exp_avg[i] + params.one_minus_beta1 * (g - exp_avg[i]);
    let v = params.beta2 * exp_avg_sq[i] + params.one_minus_beta2 * g * g;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    let denominator = sqrt(v) / sqrt(bias_correction2) + params.epsilon;
    // Padding has m = v = 0 and must stay where it is, with epsilon 0 too.
    let direction = select(0.0, m / denominator, m != 0.0);
    parameters[i] = w - rate / bias_correction1 * direction;
}

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        move_parameter(i, gradients[i], step.bias_correction1, step.bias_correction2);
    }
}

// Gradients times the loss scale; nothing changes in a step with an overflow, which the bias corrections do not count.
@compute @workgroup_size(64)
fn update_scaled(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words && loss_scale.overflow == 0u {
        let bias_correction1 = loss_scale.bias_correction1 + params.one_minus_beta1 * (1.0 - loss_scale.bias_correction1);
        let bias_correction2 = loss_scale.bias_correction2 + params.one_minus_beta2 * (1.0 - loss_scale.bias_correction2);
        move_parameter(i, gradients[i] * loss_scale.inverse, bias_correction1, bias_correction2);
    }
}
