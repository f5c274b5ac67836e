// Loads of conv2d_subgroup_8.wgsl and conv2d_subgroup_16.wgsl: from the buffers themselves.

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> dy: array<vec4<f32>>;

fn load_x(i: u32) -> vec4<f32> {
    return x[i];
}

fn load_weight(i: u32) -> vec4<f32> {
    return weight[i];
}

fn load_dy(i: u32) -> vec4<f32> {
    return dy[i];
}
