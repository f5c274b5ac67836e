// Counter-based random numbers: Philox4x32-10, word for word the function in src/rng.rs.
//
// key = (step.seed_lo, step.seed_hi); counter = (element / 4, node, step, purpose), so that one
// block serves four neighbouring elements and a mask is computed again instead of being stored.
//
// Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.

// Last word of a counter: what the numbers are for (src/rng.rs, module `purpose`).
const PURPOSE_DROPOUT: u32 = 3u;
const PURPOSE_AUGMENT: u32 = 4u;

// High 32 bits of the 64-bit product a * b, from 16-bit halves: WGSL has no wider integer.
fn multiply_high(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low_high = a_low * b_high;
    let high_low = a_high * b_low;
    // At most 3 * 0xffff: the carry out of the middle 16 bits is in its upper half.
    let middle = ((a_low * b_low) >> 16u) + (low_high & 0xffffu) + (high_low & 0xffffu);
    return a_high * b_high + (low_high >> 16u) + (high_low >> 16u) + (middle >> 16u);
}

// The four random words of one counter under one key.
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let high_0 = multiply_high(0xD2511F53u, c.x);
        let low_0 = 0xD2511F53u * c.x;
        let high_1 = multiply_high(0xCD9E8D57u, c.z);
        let low_1 = 0xCD9E8D57u * c.z;
        c = vec4<u32>(high_1 ^ c.y ^ k.x, low_1, high_0 ^ c.w ^ k.y, low_0);
        k += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

// A random word as a number in [0, 1): its top 24 bits, exact in f32.
fn uniform01(bits: u32) -> f32 {
    return f32(bits >> 8u) * 5.9604644775390625e-8;
}
