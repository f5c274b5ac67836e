// Sizes of the tiles of matrix_pixels.wgsl and matrix_weights.wgsl: subgroups of 32 of a workgroup multiply matrices of 16 x 16.
//
//   WARP_ROWS, WARP_COLUMNS    subgroups of a workgroup
//   PATCH_ROWS, PATCH_COLUMNS  matrices of 16 x 16 that a subgroup computes
//   DEPTH         steps of the reduction that are staged at a time
//   BUFFERS       1: what was staged is multiplied before the next is stored; 2: while it is
//   CHUNK         halves that an invocation loads and stores at a time: 8 are 16 bytes, 4 are 8
//   PATCH_WARPS   subgroups that bring a matrix of results into workgroup memory at a time
//   PROBE         0; 1: products only, 2: loading and staging only, 3: loading only, whose results are wrong
#define SUBGROUP 32
#define WARPS WARP_ROWS * WARP_COLUMNS
#define THREADS SUBGROUP * WARPS
#define ROWS 16 * PATCH_ROWS * WARP_ROWS
#define COLUMNS 16 * PATCH_COLUMNS * WARP_COLUMNS
#define STEP_CHUNKS DEPTH / CHUNK
#define CHUNK_QUADS CHUNK / 4
// Quads from one row of a staged operand to the next; two of them, 16 bytes, keep rows out of each other's memory banks.
#define BY_STEPS DEPTH / 4 + 2
#define BY_ROWS ROWS / 4 + 2
#define BY_COLUMNS COLUMNS / 4 + 2
#define LEFT_EACH ROWS * STEP_CHUNKS / THREADS
#define RIGHT_EACH COLUMNS * STEP_CHUNKS / THREADS
