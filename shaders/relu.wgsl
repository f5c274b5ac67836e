// Rectified linear unit: y = max(0, x); its gradient: dx = dy where y > 0, else 0. Written with comparisons, because
// max(0, NaN) may be 0, and a run that diverged must not look healthy.
// One invocation computes one element. x, y, dy, dx: [words].
#import "shared/grid.wgsl"

struct Params {
    words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<${ELEMENT}>;
@group(0) @binding(2) var<storage, read_write> y: array<${ELEMENT}>;
@group(0) @binding(3) var<storage, read> dy: array<${ELEMENT}>;
@group(0) @binding(4) var<storage, read_write> dx: array<${ELEMENT}>;

#in_place x in y
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        y[i] = select(x[i], ${ELEMENT}(0.0), x[i] < 0.0);
    }
}
#end

#in_place dy in dx
// `x` is the layer's output here: positive where the gradient passes.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.words {
        dx[i] = select(${ELEMENT}(0.0), dy[i], x[i] > 0.0);
    }
}
#end
