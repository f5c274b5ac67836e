// 2-D convolution for CPU devices from a map of 1 to 3 channels (an image) to whole quads of channels: what
// conv2d_lanes.wgsl does (formulas and layouts are there), with scalar loads of x. The input gradient of such a layer is
// seldom wanted; conv2d_lanes_scalar.wgsl has it.
//
// With so few channels, one row of a window (kernel_w * in_c values) is a run of consecutive elements of x, and one
// test against the ends of the map's row serves both column and channel: below, a `position` counts elements within a
// row of the input, in_w * in_c in all.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define LANES 16
#define PIXELS 8
#define QUADS 4
#define ROWS 8

#import "shared/conv2d_lanes_narrow.wgsl"
