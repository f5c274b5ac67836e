// Element-wise sum, the fan-in of gradients: y = a + b.
// One invocation computes one element. a, b, y: [words].
#import "shared/grid.wgsl"

struct Params {
    words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<${ELEMENT}>;
@group(0) @binding(2) var<storage, read> b: array<${ELEMENT}>;
@group(0) @binding(3) var<storage, read_write> y: array<${ELEMENT}>;

#in_place a in y
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        y[i] = ${ELEMENT}(f32(a[i]) + f32(b[i]));
    }
}
#end

// y = b: the first term of a sum over micro-batches.
@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        y[i] = b[i];
    }
}
