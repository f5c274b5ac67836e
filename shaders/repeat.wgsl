// Fills a tensor with the same values over and over: y[i] = period[i mod length]. One invocation: one word of y.
//
//   one      a single word, without the division: y [elements] from period [1]
//   words    f32, or any words: period [length], y [elements]
//   halves   f16, two in a word: period [length], a value in the lower half of each word; y [elements], the second half of
//            a last word that has only one being 0

#import "shared/grid.wgsl"

struct Params {
    elements: u32,
    length: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> period: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn one(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(wid, num) * 64u + lane;
    if i < params.elements {
        y[i] = period[0];
    }
}

@compute @workgroup_size(64)
fn words(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(wid, num) * 64u + lane;
    if i < params.elements {
        y[i] = period[i % params.length];
    }
}

@compute @workgroup_size(64)
fn halves(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = 2u * (workgroup_index(wid, num) * 64u + lane);
    if i < params.elements {
        var word = period[i % params.length];
        if i + 1u < params.elements {
            word |= period[(i + 1u) % params.length] << 16u;
        }
        y[i / 2u] = word;
    }
}
