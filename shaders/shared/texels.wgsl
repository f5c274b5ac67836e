// Tensors in textures: vec4 number i of a buffer is texel (i % 4096, i / 4096). On llvmpipe a load from a buffer in a loop goes
// lane by lane, one from a texture does not: it takes half the time.

fn texel(i: u32) -> vec2<i32> {
    return vec2<i32>(vec2<u32>(i % 4096u, i / 4096u));
}
