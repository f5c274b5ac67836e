// Copies a buffer into a texture: texels[texel(i)] = source[i].
// One invocation copies one vec4. source: [quads]; texels: as shared/texels.wgsl says.
#import "shared/grid.wgsl"
#import "shared/texels.wgsl"

struct Params {
    quads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<${ELEMENT}>>;
@group(0) @binding(2) var texels: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.quads {
        textureStore(texels, texel(i), vec4<f32>(source[i]));
    }
}
