// conv2d_matrix_64x64.wgsl for GPUs whose matrix units hold matrices of 8 x 8.
enable wgpu_cooperative_matrix;

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

alias Element = ${ELEMENT};

#define WARP_ROWS 2
#define WARP_COLUMNS 2
#define PATCH_ROWS 2
#define PATCH_COLUMNS 2

#import "shared/conv2d_matrix.wgsl"
#import "shared/matrix_simdgroup.wgsl"
