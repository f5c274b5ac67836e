// The input kernel, common to those that differ in where the pixels lie: in one array, or in several because a
// binding cannot hold all. Whoever imports this defines PARTS.
#import "shared/grid.wgsl"
#import "shared/rng.wgsl"
#import "shared/step.wgsl"

struct Params {
    images: u32,       // of a micro-batch
    channels: u32,     // at most 4, the same in memory
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    scale_h: f32,      // in_h / out_h
    scale_w: f32,
    flip: u32,         // 1: mirror every second image
    shift: u32,        // largest shift in source pixels
    mean_0: f32,
    mean_1: f32,
    mean_2: f32,
    mean_3: f32,
    inverse_std_0: f32,
    inverse_std_1: f32,
    inverse_std_2: f32,
    inverse_std_3: f32,
    gather: u32,       // 1: the arrays hold a data set, and ids say which of its images are meant
    images_per_part: u32,
    cutout: u32,       // side of a square that is left out, in source pixels
    brightness: f32,   // most that is added to a value in [0, 1]
    contrast: f32,     // most by which the distance to the middle is stretched, as a share of it
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<${ELEMENT}>;
#for part in 0..PARTS
@group(0) @binding(${4 + part}) var<storage, read> pixels_${part}: array<u32>;
#end

// Where the bytes of an image begin.
struct Place {
    part: u32,
    first: u32,
}

fn place_of(image: u32) -> Place {
    let number = select(image, ids[image], params.gather != 0u);
    var part = 0u;
    var within = number;
#for part in 1..PARTS
    if number >= ${part}u * params.images_per_part {
        part = ${part}u;
        within = number - ${part}u * params.images_per_part;
    }
#end
    return Place(part, within * params.in_h * params.in_w * params.channels);
}

fn word(part: u32, at: u32) -> u32 {
#for part in 1..PARTS
    if part == ${part}u {
        return pixels_${part}[at];
    }
#end
    return pixels_0[at];
}

// value / 255, correctly rounded (WGSL lets a division be off by 2.5 units in the last place): one step of Newton's
// method on the rounded quotient, whose remainder value - 255 * quotient is exact in this order.
fn unit(value: f32) -> f32 {
    let quotient = value * (1.0 / 255.0);
    let remainder = (value - 256.0 * quotient) + quotient;
    return quotient + remainder * (1.0 / 255.0);
}

#import "shared/augment.wgsl"

// A random word as a number in [-1, 1).
fn signed(bits: u32) -> f32 {
    return 2.0 * uniform01(bits) - 1.0;
}

fn adjusts() -> bool {
    return params.brightness > 0.0 || params.contrast > 0.0;
}

// A pixel of the changed image; 0 where the shift uncovered it.
fn source(place: Place, row: u32, column: u32, channel: u32, motion: Motion) -> f32 {
    let from_row = i32(row) - motion.down;
    var from_column = i32(column) - motion.right;
    let inside = from_row >= 0 && from_row < i32(params.in_h) && from_column >= 0 && from_column < i32(params.in_w);
    if !inside {
        return 0.0;
    }
    if motion.flip {
        from_column = i32(params.in_w) - 1 - from_column;
    }
    let at = place.first + (u32(from_row) * params.in_w + u32(from_column)) * params.channels + channel;
    return f32((word(place.part, at / 4u) >> (at % 4u * 8u)) & 255u);
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    let n = i / (params.out_h * params.out_w);
    if n >= params.images {
        return;
    }
    if n >= step.images {
        for (var channel = 0u; channel < params.channels; channel++) {
            y[i * params.channels + channel] = ${ELEMENT}(0.0);
        }
        return;
    }
    let row = i / params.out_w % params.out_h;
    let column = i % params.out_w;
    let source_row = max(params.scale_h * (f32(row) + 0.5) - 0.5, 0.0);
    let source_column = max(params.scale_w * (f32(column) + 0.5) - 0.5, 0.0);
    let top = min(u32(source_row), params.in_h - 1u);
    let left = min(u32(source_column), params.in_w - 1u);
    let bottom = min(top + 1u, params.in_h - 1u);
    let right = min(left + 1u, params.in_w - 1u);
    let to_bottom = min(source_row - f32(top), 1.0);
    let to_right = min(source_column - f32(left), 1.0);

    let mean = vec4<f32>(params.mean_0, params.mean_1, params.mean_2, params.mean_3);
    let inverse_std = vec4<f32>(params.inverse_std_0, params.inverse_std_1, params.inverse_std_2, params.inverse_std_3);
    let image = step.first_image + n;
    let motion = motion_of(ids[image]);
    var random = vec4<u32>();
    if params.cutout > 0u || adjusts() {
        random = second_block(ids[image]);
    }
    let factor = 1.0 + params.contrast * signed(random.z);
    let summand = params.brightness * signed(random.w);
    let place = place_of(image);
    let is_left_out = is_cut(top, left, random);
    for (var channel = 0u; channel < params.channels; channel++) {
        let top_left = source(place, top, left, channel, motion);
        let top_right = source(place, top, right, channel, motion);
        let bottom_left = source(place, bottom, left, channel, motion);
        let bottom_right = source(place, bottom, right, channel, motion);
        let upper = (1.0 - to_right) * top_left + to_right * top_right;
        let lower = (1.0 - to_right) * bottom_left + to_right * bottom_right;
        // Scaled only now: weights and bytes are short numbers, so that the interpolation is exact for most sizes.
        var value = (1.0 - to_bottom) * upper + to_bottom * lower;
        if adjusts() {
            value = clamp((value - 127.5) * factor + 127.5 + 255.0 * summand, 0.0, 255.0);
        }
        let normalised = (unit(value) - mean[channel]) * inverse_std[channel];
        y[i * params.channels + channel] = ${ELEMENT}(select(normalised, 0.0, is_left_out));
    }
}
