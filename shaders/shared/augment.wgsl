// What is drawn for a training image, from its id and the epoch: whoever changes images imports this, so that all draw the
// same. The including shader imports shared/rng.wgsl and shared/step.wgsl, and declares `params` with `flip`, `shift`, `cutout`,
// `in_h` and `in_w`.

// How an image is mirrored and moved.
struct Motion {
    flip: bool,
    down: i32,
    right: i32,
}

fn motion_of(id: u32) -> Motion {
    if params.flip == 0u && params.shift == 0u {
        return Motion(false, 0, 0);
    }
    let random = philox(vec4<u32>(0u, id, step.epoch, PURPOSE_AUGMENT), vec2<u32>(step.seed_lo, step.seed_hi));
    let span = 2u * params.shift + 1u;
    let flip = params.flip != 0u && (random.x & 1u) == 1u;
    return Motion(flip, i32(multiply_high(random.y, span)) - i32(params.shift), i32(multiply_high(random.z, span)) - i32(params.shift));
}

// The second block of random words of an image: where its square is left out (x, y), contrast (z) and brightness (w).
fn second_block(id: u32) -> vec4<u32> {
    return philox(vec4<u32>(1u, id, step.epoch, PURPOSE_AUGMENT), vec2<u32>(step.seed_lo, step.seed_hi));
}

// Whether a pixel lies in the square that is left out, whose middle is drawn.
fn is_cut(row: u32, column: u32, random: vec4<u32>) -> bool {
    let top = i32(multiply_high(random.x, params.in_h)) - i32(params.cutout / 2u);
    let left = i32(multiply_high(random.y, params.in_w)) - i32(params.cutout / 2u);
    return u32(i32(row) - top) < params.cutout && u32(i32(column) - left) < params.cutout;
}
