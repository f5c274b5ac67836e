// The image of a vector, with the changes of training: y = x where nothing is to be changed, else mirrored, moved, and a square
// left at 0, as image_input draws them. For values that are no pixels any more: those of whitened images.
// One invocation computes all channels of one pixel.
// x: [images][values_in_memory], of which in_h * in_w * channels are an image; ids: [images of the batch];
// y: [images][in_h][in_w][channels].
#import "shared/grid.wgsl"
#import "shared/rng.wgsl"
#import "shared/step.wgsl"

struct Params {
    images: u32,       // of a micro-batch
    channels: u32,     // at most 4, the same in memory
    in_h: u32,
    in_w: u32,
    stride: u32,       // words from one image of x to the next
    flip: u32,         // 1: mirror every second image
    shift: u32,        // largest shift in pixels; uncovered ones are 0
    cutout: u32,       // side of a square that is left out, in pixels
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<${ELEMENT}>;

#import "shared/augment.wgsl"

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    let n = i / (params.in_h * params.in_w);
    if n >= params.images {
        return;
    }
    let row = i / params.in_w % params.in_h;
    let column = i % params.in_w;
    var from_row = i32(row);
    var from_column = i32(column);
    var is_empty = n >= step.images;
    if !is_empty {
        let id = ids[step.first_image + n];
        let motion = motion_of(id);
        from_row -= motion.down;
        from_column -= motion.right;
        is_empty = from_row < 0 || from_row >= i32(params.in_h) || from_column < 0 || from_column >= i32(params.in_w);
        if motion.flip {
            from_column = i32(params.in_w) - 1 - from_column;
        }
        if params.cutout > 0u {
            is_empty = is_empty || is_cut(row, column, second_block(id));
        }
    }
    if is_empty {
        for (var channel = 0u; channel < params.channels; channel++) {
            y[i * params.channels + channel] = ${ELEMENT}(0.0);
        }
        return;
    }
    let first = n * params.stride + (u32(from_row) * params.in_w + u32(from_column)) * params.channels;
    for (var channel = 0u; channel < params.channels; channel++) {
        y[i * params.channels + channel] = ${ELEMENT}(x[first + channel]);
    }
}
