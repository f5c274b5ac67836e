// 2-D convolution of maps with 1 to 3 channels (first layers) for CPU devices whose subgroups are 8 lanes wide: what
// conv2d_subgroup_8.wgsl does, with scalar loads of x. Output channels in memory are a multiple of 4.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define PIXEL_LANES 4
#define CHANNEL_LANES 2

#define TAPS 1
#define STEPS 2

#import "shared/conv2d_subgroup_narrow.wgsl"
