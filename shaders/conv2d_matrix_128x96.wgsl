// 2-D convolution in half precision on the matrix units of GPUs whose subgroups have 32 invocations, in tiles of 128 x 96.
// Formulas, layouts and bindings are those of conv2d_lanes.wgsl; shared/conv2d_matrix.wgsl has the kernels.
enable f16;
enable wgpu_cooperative_matrix;

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

alias Element = f16;

#define WARP_ROWS 4
#define WARP_COLUMNS 2
#define PATCH_ROWS 2
#define PATCH_COLUMNS 3

#import "shared/conv2d_matrix.wgsl"
#import "shared/matrix_cooperative.wgsl"
