// 2-D convolution for CPU devices from 1 to 3 channels, forward only, for little work: conv2d_lanes_narrow.wgsl with smaller
// tiles, for the reasons given in conv2d_lanes_small.wgsl.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define LANES 8
#define PIXELS 4
#define QUADS 2

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

#import "shared/conv2d_lanes_narrow_forward.wgsl"
