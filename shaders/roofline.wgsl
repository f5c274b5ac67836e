// What a device reaches at most: multiply-adds in registers, loads from caches, and copies from buffer to buffer.
// multiply_add_*: every invocation runs independent chains y = y factor + summand, 32 links a round, and writes their
// sum, so that nothing can be left out. factor < 1 keeps every y near summand / (1 - factor): no link meets infinities
// or denormals. Chains hide the latency of a link and take registers; how many and in which form is the device's affair.
// load: 8 vec4 a round from the first 1024 of source, which every cache holds; their sum is written.
// copy_*: copied = source, one or four vec4 an invocation. fill: copied = numbers that depend on the index.
// sums: [invocations]; source, copied: [quads].
#import "shared/grid.wgsl"

struct Params {
    rounds: u32,
    quads: u32,
    factor: f32,
    summand: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> copied: array<vec4<f32>>;

#for size in 1..5
#define CHAINS 4 * size
@compute @workgroup_size(64)
fn multiply_add_fused_${CHAINS}(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
#for c in 0..CHAINS
    var y${c} = f32(i + ${c}u) * params.summand;
#end
    for (var round = 0u; round < params.rounds; round++) {
#for link in 0..32
#for c in 0..CHAINS
        y${c} = fma(y${c}, params.factor, params.summand);
#end
#end
    }
    var sum = 0.0;
#for c in 0..CHAINS
    sum += y${c};
#end
    sums[i] = sum;
}
#end

@compute @workgroup_size(64)
fn multiply_add_plain_8(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
#for c in 0..8
    var y${c} = f32(i + ${c}u) * params.summand;
#end
    for (var round = 0u; round < params.rounds; round++) {
#for link in 0..32
#for c in 0..8
        y${c} = y${c} * params.factor + params.summand;
#end
#end
    }
    var sum = 0.0;
#for c in 0..8
    sum += y${c};
#end
    sums[i] = sum;
}

// 8 chains in 2 vectors.
@compute @workgroup_size(64)
fn multiply_add_vectors_8(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    let factor = vec4<f32>(params.factor);
    let summand = vec4<f32>(params.summand);
#for c in 0..2
    var y${c} = vec4<f32>(vec4<u32>(i + ${4 * c}u) + vec4<u32>(0u, 1u, 2u, 3u)) * params.summand;
#end
    for (var round = 0u; round < params.rounds; round++) {
#for link in 0..32
#for c in 0..2
        y${c} = fma(y${c}, factor, summand);
#end
#end
    }
    let sum = y0 + y1;
    sums[i] = sum.x + sum.y + sum.z + sum.w;
}

@compute @workgroup_size(64)
fn load(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
#for c in 0..8
    var sum${c} = vec4<f32>();
#end
    for (var round = 0u; round < params.rounds; round++) {
        let at = round * 8u + lane;
#for c in 0..8
        sum${c} += source[(at + ${64 * c}u) % 1024u];
#end
    }
    let sum = ((sum0 + sum1) + (sum2 + sum3)) + ((sum4 + sum5) + (sum6 + sum7));
    sums[i] = sum.x + sum.y + sum.z + sum.w;
}

@compute @workgroup_size(64)
fn fill(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.quads {
        let mixed = (vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u)) * 2654435761u;
        copied[i] = vec4<f32>(mixed >> vec4<u32>(8u)) * params.factor;
    }
}

@compute @workgroup_size(64)
fn copy_1(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.quads {
        copied[i] = source[i];
    }
}

// A quarter of the invocations, each at the same place of four parts.
@compute @workgroup_size(64)
fn copy_4(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    let part = params.quads / 4u;
    if i < part {
#for k in 0..4
        copied[i + ${k}u * part] = source[i + ${k}u * part];
#end
    }
}
