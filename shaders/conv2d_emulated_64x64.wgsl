// conv2d_matrix_64x64.wgsl without matrix units: its tiles and its arithmetic, for proving it on devices that have none.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

alias Element = ${ELEMENT};

#define WARP_ROWS 2
#define WARP_COLUMNS 2
#define PATCH_ROWS 2
#define PATCH_COLUMNS 2

#import "shared/conv2d_matrix.wgsl"
#import "shared/matrix_emulated.wgsl"
