// Exponential moving average of the parameters: average = d average + (1 - d) parameters, where d grows with the updates done:
// min(decay, (1 + t) / (10 + t)) behind update number t, counted from 1, as TensorFlow's ExponentialMovingAverage has it. So the
// start is forgotten soon, however short the run. One invocation averages one scalar. parameters, average: [words].
#import "shared/grid.wgsl"
#import "shared/step.wgsl"

struct Params {
    words: u32,
    decay: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> average: array<f32>;

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        let t = f32(step.step + 1u);
        let decay = min(params.decay, (1.0 + t) / (10.0 + t));
        average[i] += (1.0 - decay) * (parameters[i] - average[i]);
    }
}
