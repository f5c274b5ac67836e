// What gemm_pixels.wgsl and gemm_weights.wgsl share: tiles of f32 results in registers (shared/conv2d_gemm_tile.wgsl).
//
//   THREAD_ROWS, THREAD_COLUMNS  invocations of a workgroup
//   ROW_QUADS, COLUMN_QUADS      quads of results of an invocation
//   DEPTH    steps of the reduction that are staged at a time
//   BUFFERS  1: what was staged is multiplied before the next is stored; 2: while it is
//   LANES    how the 32 invocations that run together lie in the tile: 0: line by line; 1: 4 rows of 8 columns, which read half as
//            much of workgroup memory
//   PROBE    0; 1: products only, 2: loading and staging only, 3: loading only, whose results are wrong
#import "shared/conv2d_gemm_tile.wgsl"
#define ROWS 4 * LEFT_QUADS
#define COLUMNS 4 * RIGHT_QUADS
#define GROUPS DEPTH / 4

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"
#import "taps.wgsl"

// The row and the column of an invocation among those of its workgroup.
fn place_of(lane: u32) -> vec2<u32> {
#if LANES
    let block = lane / 32u;
    let within = lane % 32u;
    return vec2<u32>(block / ${THREAD_COLUMNS / 8}u * 4u + within / 8u, block % ${THREAD_COLUMNS / 8}u * 8u + within % 8u);
#else
    return vec2<u32>(lane / ${THREAD_COLUMNS}u, lane % ${THREAD_COLUMNS}u);
#end
}
