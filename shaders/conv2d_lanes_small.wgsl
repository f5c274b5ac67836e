// 2-D convolution for CPU devices, forward only, for little work: what conv2d_lanes.wgsl does (formulas and layouts are
// there), with smaller tiles. They compile several times faster and leave more workgroups to share among the cores, which
// is what counts when a few pictures are named.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define LANES 8
#define PIXELS 4
#define QUADS 2

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

#import "shared/conv2d_lanes_forward.wgsl"
