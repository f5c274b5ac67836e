// The memory of a workgroup whose subgroups multiply matrices: matrix_tile.wgsl has the sizes. naga takes matrices of f16 from arrays of
// f16 only, so 16 bytes of a buffer are four words that are split when they are staged.
#define BUFFER LEFT_QUADS + RIGHT_QUADS
var<workgroup> staged: array<vec4<f16>, ${BUFFERS * BUFFER}>;
// 16 x 16 results of PATCH_WARPS subgroups, row by row.
var<workgroup> patches: array<vec4<f32>, ${64 * PATCH_WARPS}>;

#if CHUNK - 4
alias Chunk = vec4<u32>;
#else
alias Chunk = vec4<f16>;
#end

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"
#import "taps.wgsl"

// Where this subgroup's results begin in the tile: rows, columns.
fn corner(lane: u32) -> vec2<u32> {
    let subgroup = lane / ${SUBGROUP}u;
    return vec2<u32>(subgroup / ${WARP_COLUMNS}u * ${16 * PATCH_ROWS}u, subgroup % ${WARP_COLUMNS}u * ${16 * PATCH_COLUMNS}u);
}

fn stage(at: u32, chunk: Chunk) {
#if CHUNK - 4
    staged[at] = vec4<f16>(vec4<f32>(unpack2x16float(chunk.x), unpack2x16float(chunk.y)));
    staged[at + 1u] = vec4<f16>(vec4<f32>(unpack2x16float(chunk.z), unpack2x16float(chunk.w)));
#else
    staged[at] = chunk;
#end
}

// Where the results of this subgroup are brought, when it is its turn.
fn patch_at(lane: u32) -> u32 {
    return lane / ${SUBGROUP}u % ${PATCH_WARPS}u * 64u;
}

// Quad `quad` of the two in an invocation's half row of its subgroup's results.
fn patch_quad(lane: u32, quad: u32) -> vec4<f32> {
    return patches[patch_at(lane) + lane % ${SUBGROUP}u * 2u + quad];
}
