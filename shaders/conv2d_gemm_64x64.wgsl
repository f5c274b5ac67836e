// 2-D convolution for GPUs: conv2d_gemm_128x128.wgsl with tiles of 64 x 64, 4 x 4 an invocation; 8 KiB of workgroup
// memory. For integrated GPUs, and where larger tiles would leave a GPU partly idle.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define THREAD_ROWS 16
#define THREAD_COLUMNS 16
#define ROW_QUADS 1
#define COLUMN_QUADS 1

#import "shared/conv2d_gemm.wgsl"
#import "shared/conv2d_gemm_quads.wgsl"
#import "shared/conv2d_gemm_splits.wgsl"
