// The memory of a workgroup whose subgroups multiply matrices (matrix_tile.wgsl has the sizes). Halves travel in words of f32, which
// nothing computes with: so what is staged, in LEFT_CHUNKS and RIGHT_CHUNKS, and what comes of it share one array.
#if CHUNK - 4
alias Chunk = vec4<f32>;
#else
alias Chunk = vec2<f32>;
#end

#define BUFFER LEFT_CHUNKS + RIGHT_CHUNKS
const MEMORY = max(${BUFFERS * BUFFER}u, ${PATCH_CHUNKS * WARPS * STRIP}u);
var<workgroup> memory: array<Chunk, MEMORY>;

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"
#import "taps.wgsl"

// Where this subgroup's results begin in the tile: rows, columns.
fn corner(lane: u32) -> vec2<u32> {
    let subgroup = lane / ${SUBGROUP}u;
    return vec2<u32>(subgroup / ${WARP_COLUMNS}u * ${16 * PATCH_ROWS}u, subgroup % ${WARP_COLUMNS}u * ${16 * PATCH_COLUMNS}u);
}

// Two halves as they lie in a word.
fn halves(word: f32) -> vec2<f32> {
    return unpack2x16float(bitcast<u32>(word));
}

fn word_of(low: f32, high: f32) -> f32 {
    return bitcast<f32>(pack2x16float(vec2<f32>(low, high)));
}

// Where a subgroup's result number `index` is brought.
fn patch_at(lane: u32, index: u32) -> u32 {
    return (lane / ${SUBGROUP}u * ${STRIP}u + index) * ${PATCH_CHUNKS}u;
}

// Quad `quad` of the two in an invocation's half row of the result at `at`.
fn patch_quad(at: u32, lane: u32, quad: u32) -> vec4<f32> {
#if CHUNK - 4
    return memory[at + lane % ${SUBGROUP}u * 2u + quad];
#else
    let first = at + lane % ${SUBGROUP}u * 4u + quad * 2u;
    return vec4<f32>(memory[first], memory[first + 1u]);
#end
}
