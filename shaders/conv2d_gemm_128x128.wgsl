// 2-D convolution for GPUs as an implicit matrix product: nothing is unfolded in memory. Tiles of 128 x 128 results, 8 x 8
// an invocation; 16 KiB of workgroup memory. Channel counts in memory are multiples of 4; formulas and layouts are those
// of conv2d_lanes.wgsl.
//
//   pass             rows of the result        columns            reduction
//   forward          output pixels             output channels    (ky, kx, c)
//   backward_input   input pixels              input channels     (ky, kx, o)
//   backward_weight  (ky, kx, c)               output channels    output pixels of one split

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define THREAD_ROWS 16
#define THREAD_COLUMNS 16
#define ROW_QUADS 2
#define COLUMN_QUADS 2

#import "shared/conv2d_gemm.wgsl"
#import "shared/conv2d_gemm_quads.wgsl"
