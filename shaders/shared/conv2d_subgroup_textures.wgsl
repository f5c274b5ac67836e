// Loads of conv2d_subgroup_textures_*.wgsl: from textures (texels.wgsl), into which texture_copy.wgsl brings x, weight and dy.
// Only the mask of the input gradient is read from the buffer x.
#import "shared/texels.wgsl"

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(11) var x_texels: texture_2d<f32>;
@group(0) @binding(12) var weight_texels: texture_2d<f32>;
@group(0) @binding(13) var dy_texels: texture_2d<f32>;

fn load_x(i: u32) -> vec4<f32> {
    return textureLoad(x_texels, texel(i), 0);
}

fn load_weight(i: u32) -> vec4<f32> {
    return textureLoad(weight_texels, texel(i), 0);
}

fn load_dy(i: u32) -> vec4<f32> {
    return textureLoad(dy_texels, texel(i), 0);
}
