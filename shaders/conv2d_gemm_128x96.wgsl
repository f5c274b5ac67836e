// 2-D convolution for GPUs: conv2d_gemm_128x128.wgsl with tiles of 128 x 96, for channel counts such as 96, 192 and 384.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define THREAD_ROWS 16
#define THREAD_COLUMNS 12
#define ROW_QUADS 2
#define COLUMN_QUADS 2

#import "shared/conv2d_gemm.wgsl"
#import "shared/conv2d_gemm_quads.wgsl"
