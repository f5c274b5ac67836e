// The type in which a filter is stored: y = x, rounded where y is in half precision.
// One invocation converts one element. x, y: [words].
#import "shared/grid.wgsl"

struct Params {
    words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<${ELEMENT}>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        y[i] = ${ELEMENT}(x[i]);
    }
}
