// conv2d_matrix_128x128.wgsl without matrix units: its tiles and its arithmetic, for proving it on devices that have none.
enable f16;

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

alias Element = f16;

#define WARP_ROWS 2
#define WARP_COLUMNS 4
#define PATCH_ROWS 4
#define PATCH_COLUMNS 2

#import "shared/conv2d_matrix.wgsl"
#import "shared/matrix_emulated.wgsl"
