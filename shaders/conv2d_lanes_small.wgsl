// 2-D convolution for CPU devices, for little work: what conv2d_lanes.wgsl does (formulas and layouts are there), with
// smaller tiles. They compile several times faster and leave more workgroups to share among the cores, which is what
// counts when a few pictures are named; and drivers whose compilers choke on hundreds of registers can use nothing else.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define LANES 16
#define PIXELS 4
#define QUADS 2
#define ROW_QUADS 1

#import "shared/conv2d_lanes.wgsl"
