// Checks a result of whole numbers where it lies: sums[i] is, modulo 2^32, the sum of row_weight(row) * channel_weight(channel) *
// value over the elements that invocation i reads, and how many of them are no whole number below 2^24. Weights are odd, so one
// wrong element always changes the sum. values: [rows, channels]; sums: [invocations].
#import "shared/grid.wgsl"

struct Params {
    elements: u32,
    channels: u32,
    invocations: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<${ELEMENT}>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec2<u32>>;

// An odd number that looks random.
fn weight_of(index: u32) -> u32 {
    var hash = index * 0x9e3779b1u;
    hash = (hash ^ (hash >> 15u)) * 0x85ebca77u;
    return (hash ^ (hash >> 13u)) | 1u;
}

@compute @workgroup_size(64)
fn whole_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let invocation = workgroup_index(wid, num) * 64u + lane;
    if invocation >= params.invocations {
        return;
    }
    var sum = 0u;
    var others = 0u;
    for (var index = invocation; index < params.elements; index += params.invocations) {
        let value = f32(values[index]);
        // What is no number has the largest exponent, so it is none of these: arithmetic need not know it.
        let is_small = (bitcast<u32>(value) & 0x7f800000u) < 0x4b800000u;
        let whole = i32(select(0.0, value, is_small));
        if is_small && f32(whole) == value {
            let row = index / params.channels;
            sum += weight_of(row) * weight_of(~(index - row * params.channels)) * u32(whole);
        } else {
            others += 1u;
        }
    }
    sums[invocation] = vec2<u32>(sum, others);
}
