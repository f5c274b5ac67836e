// 2-D convolution for CPU devices whose subgroups are 16 lanes wide (llvmpipe with 512 bits). Formulas, layouts and bindings
// are those of conv2d_lanes.wgsl; channel counts in memory are multiples of 4.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define PIXEL_LANES 4
#define CHANNEL_LANES 4

#import "shared/conv2d_subgroup.wgsl"
#import "shared/conv2d_subgroup_buffers.wgsl"
