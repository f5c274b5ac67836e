// Loads of conv2d_subgroup_8.wgsl and conv2d_subgroup_16.wgsl: from the buffers themselves.

#import "shared/quads.wgsl"

// What masks the input gradient.
@group(0) @binding(1) var<storage, read> x: array<vec4<${ELEMENT}>>;
@group(0) @binding(1) var<storage, read> x_quads: array<Quad>;
@group(0) @binding(2) var<storage, read> weight: array<Quad>;
@group(0) @binding(5) var<storage, read> dy: array<Quad>;

fn load_x(i: u32) -> vec4<f32> {
    return values_of(x_quads[i]);
}

fn load_weight(i: u32) -> vec4<f32> {
    return values_of(weight[i]);
}

fn load_dy(i: u32) -> vec4<f32> {
    return values_of(dy[i]);
}
