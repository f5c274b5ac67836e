// Counts the elements in which two buffers differ, and finds the first of them, by their bits: compilers may assume that
// floats are numbers. NaN differs from everything, also from itself; the two zeros are equal. First every lane of a grid
// takes every lanes-th word, then one workgroup adds up what the lanes have found: no result depends on an order.
//
//   words, halves  one invocation: the words lane, lane + lanes, ... of `expected` and `got`, each word an f32 or two f16;
//                  [words] both, to partials [lanes]: how many elements differ, and the first of them
//   summarise      one workgroup: partials [lanes] to result [tensor]

#import "shared/grid.wgsl"

struct Params {
    // Elements of the tensors; the second half of a last word that has only one is not compared.
    elements: u32,
    // Invocations of the grid that take part.
    lanes: u32,
    // Where in `result` this pair of tensors belongs.
    tensor: u32,
}

// The first difference where there is none.
const NOWHERE = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> expected: array<u32>;
@group(0) @binding(2) var<storage, read> got: array<u32>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> result: array<vec2<u32>>;

// Whether two floats differ. Both are given as bits with `magnitude` for a mask of all but the sign, of which those over
// `infinity` are NaN.
fn differs(a: u32, b: u32, magnitude: u32, infinity: u32) -> bool {
    let is_nan = (a & magnitude) > infinity || (b & magnitude) > infinity;
    let is_zero = ((a | b) & magnitude) == 0u;
    return is_nan || (a != b && !is_zero);
}

fn with_element(found: vec2<u32>, at: u32) -> vec2<u32> {
    return vec2<u32>(found.x + 1u, min(found.y, at));
}

@compute @workgroup_size(128)
fn words(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let lane = workgroup_index(wid, num) * 128u + local;
    if lane >= params.lanes {
        return;
    }
    var found = vec2<u32>(0u, NOWHERE);
    for (var i = lane; i < params.elements; i += params.lanes) {
        if differs(expected[i], got[i], 0x7fffffffu, 0x7f800000u) {
            found = with_element(found, i);
        }
    }
    partials[lane] = found;
}

@compute @workgroup_size(128)
fn halves(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let lane = workgroup_index(wid, num) * 128u + local;
    if lane >= params.lanes {
        return;
    }
    var found = vec2<u32>(0u, NOWHERE);
    for (var i = lane; 2u * i < params.elements; i += params.lanes) {
        let a = expected[i];
        let b = got[i];
        if differs(a & 0xffffu, b & 0xffffu, 0x7fffu, 0x7c00u) {
            found = with_element(found, 2u * i);
        }
        if 2u * i + 1u < params.elements && differs(a >> 16u, b >> 16u, 0x7fffu, 0x7c00u) {
            found = with_element(found, 2u * i + 1u);
        }
    }
    partials[lane] = found;
}

var<workgroup> sums: array<vec2<u32>, 256>;

fn sum(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x + b.x, min(a.y, b.y));
}

@compute @workgroup_size(256)
fn summarise(@builtin(local_invocation_index) local: u32) {
    var found = vec2<u32>(0u, NOWHERE);
    for (var lane = local; lane < params.lanes; lane += 256u) {
        found = sum(found, partials[lane]);
    }
    sums[local] = found;
    for (var width = 128u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if local < width {
            sums[local] = sum(sums[local], sums[local + width]);
        }
    }
    if local == 0u {
        result[params.tensor] = sums[0];
    }
}
