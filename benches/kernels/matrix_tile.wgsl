// Sizes of the tiles of matrix_pixels.wgsl and matrix_weights.wgsl: subgroups of 32 of a workgroup multiply matrices of 16 x 16.
//
//   WARP_ROWS, WARP_COLUMNS    subgroups of a workgroup
//   PATCH_ROWS, PATCH_COLUMNS  matrices of 16 x 16 that a subgroup computes
//   DEPTH      steps of the reduction that are staged at a time
//   BUFFERS    1: what was staged is multiplied before the next is stored; 2: while it is
//   CHUNK      halves that an invocation moves at a time: 8 are 16 bytes, 4 are 8
//   STRIP      matrices of results that a subgroup brings into workgroup memory at a time
//   PROBE      0; 1: products only, 2: loading and staging only, 3: loading only, whose results are wrong
#define SUBGROUP 32
#define WARPS WARP_ROWS * WARP_COLUMNS
#define THREADS SUBGROUP * WARPS
#define ROWS 16 * PATCH_ROWS * WARP_ROWS
#define COLUMNS 16 * PATCH_COLUMNS * WARP_COLUMNS
#define STEP_CHUNKS DEPTH / CHUNK
// 16 bytes behind each row of a staged operand keep rows out of each other's memory banks.
#define PAD 8 / CHUNK
#define BY_STEPS STEP_CHUNKS + PAD
#define BY_ROWS ROWS / CHUNK + PAD
#define BY_COLUMNS COLUMNS / CHUNK + PAD
#define LEFT_EACH ROWS * STEP_CHUNKS / THREADS
#define RIGHT_EACH COLUMNS * STEP_CHUNKS / THREADS
// Chunks of a 16 x 16 result in f32, and of one of its rows.
#define PATCH_CHUNKS 512 / CHUNK
#define PATCH_ROW_CHUNKS 32 / CHUNK
