// Unfolds a narrow input in half precision, so that its first convolution can run on matrix units: columns[pixel, step] is what step
// (ky, kx, c) of the reduction meets, 0 outside the map and from the last step up to STEPS, a multiple of 8.
//
// One invocation writes 8 steps of a pixel. KERNEL_WIDTH and CHANNELS are numbers, so that dividing by them is cheap.
#define INPUT 0
#define ROWS 1
#define COLUMNS 1
#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"
#import "taps.wgsl"

// Two halves in a word.
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> unfolded: array<vec4<u32>>;

fn half_of(place: u32, channel: u32) -> u32 {
    let index = place * ${CHANNELS}u + channel;
    return (x[index / 2u] >> (index % 2u * 16u)) & 0xffffu;
}

@compute @workgroup_size(64)
fn unfold(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = workgroup_index(wid, num) * 64u + lane;
    let number = index / ${STEPS / 8}u;
    if number >= params.batch * params.out_h * params.out_w {
        return;
    }
    let pixel = pixel_of(number);
    let first = index % ${STEPS / 8}u * 8u;
    var found: array<u32, 8>;
#for i in 0..8
    let tap_${i} = (first + ${i}u) / ${CHANNELS}u;
    let place_${i} = met(pixel, tap_${i} / ${KERNEL_WIDTH}u, tap_${i} % ${KERNEL_WIDTH}u);
    if tap_${i} < params.kernel_h * params.kernel_w && place_${i} != NONE {
        found[${i}] = half_of(place_${i}, (first + ${i}u) % ${CHANNELS}u);
    }
#end
    unfolded[index] = vec4<u32>(found[0] | (found[1] << 16u), found[2] | (found[3] << 16u), found[4] | (found[5] << 16u),
        found[6] | (found[7] << 16u));
}
