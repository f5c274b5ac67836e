// 2-D convolution of maps with 1 to 3 channels (first layers) for GPUs: conv2d_gemm_128x96.wgsl with scalar loads of x.
// Output channels in memory are a multiple of 4. A first layer rarely needs its input gradient: there is none here.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define THREAD_ROWS 16
#define THREAD_COLUMNS 12
#define ROW_QUADS 2
#define COLUMN_QUADS 2

#import "shared/conv2d_gemm.wgsl"
#import "shared/conv2d_gemm_scalars.wgsl"
