// 2-D convolution for CPU devices from 1 to 3 channels, for little work: conv2d_lanes_narrow.wgsl with smaller tiles, for
// the reasons given in conv2d_lanes_small.wgsl.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define LANES 16
#define PIXELS 4
#define QUADS 2
#define ROWS 4

#import "shared/conv2d_lanes_narrow.wgsl"
