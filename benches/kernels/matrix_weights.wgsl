// The weight gradient of a 2-D convolution in half precision on matrix units, as an implicit matrix product: partial sums over a
// part of the output pixels each, which conv2d_reduce.wgsl adds up. Input channels are a multiple of CHUNK, both channel counts of 16.
//
//   partials[split, (ky, kx, c), o] = sum over the part's pixels of x[met, c] * dy[pixel, o]; the last row of a part sums dy: dbias
//
// One workgroup computes a tile of ROWS rows by COLUMNS output channels. Pixels are stepped through without a division.
// RESULTS_DIRECT 1: matrices of results are stored where the partial sums lie, without passing through workgroup memory.
// WEIGHT_ROWS: where it is not 0, rows that there are weights for.
enable f16;
#if COOPERATIVE
enable wgpu_cooperative_matrix;
#end

#define INPUT 0
#define RIGHT_DIRECT 0
#import "matrix_tile.wgsl"
#define LEFT_QUADS DEPTH * BY_ROWS
#define RIGHT_QUADS DEPTH * BY_COLUMNS
#import "matrix.wgsl"

@group(0) @binding(1) var<storage, read> x: array<Chunk>;
@group(0) @binding(2) var<storage, read> dy: array<Chunk>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4<f32>>;

#if COOPERATIVE
#import "units_cooperative.wgsl"
#else
#import "units_emulated.wgsl"
#end

@compute @workgroup_size(${THREADS})
fn weights(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_chunks = params.in_c / ${CHUNK}u;
    let out_chunks = params.out_c / ${CHUNK}u;
    let out_c4 = params.out_c / 4u;
    let rows = params.kernel_h * params.kernel_w * params.in_c;
#if WEIGHT_ROWS
    let stored_rows = ${WEIGHT_ROWS}u;
#else
    let stored_rows = rows;
#end
    let tile = tile_of(workgroup_index(wid, num), rows, params.out_c);
    if tile.split >= params.splits {
        return;
    }
    let begin = tile.split * params.per_split;
    let end = min(begin + params.per_split, params.batch * params.out_h * params.out_w);
    let lines = ${DEPTH}u / params.out_w;
    let columns = ${DEPTH}u % params.out_w;
    // Left by columns, right by rows: invocations next to each other read channels next to each other.
#for i in 0..LEFT_EACH
    let left_step_${i} = (lane + ${i * THREADS}u) / ${ROWS / CHUNK}u;
    let left_chunk_${i} = (lane + ${i * THREADS}u) % ${ROWS / CHUNK}u;
    let row_chunk_${i} = tile.row / ${CHUNK}u + left_chunk_${i};
    let tap_${i} = row_chunk_${i} / in_chunks;
    let ky_${i} = tap_${i} / params.kernel_w;
    let kx_${i} = tap_${i} - ky_${i} * params.kernel_w;
    let channel_${i} = row_chunk_${i} - tap_${i} * in_chunks;
    let left_exists_${i} = row_chunk_${i} * ${CHUNK}u < rows;
    var pixel_${i} = pixel_of(begin + left_step_${i});
    var left_staged_${i} = Chunk();
#end
#for i in 0..RIGHT_EACH
    let right_step_${i} = (lane + ${i * THREADS}u) / ${COLUMNS / CHUNK}u;
    let right_chunk_${i} = (lane + ${i * THREADS}u) % ${COLUMNS / CHUNK}u;
    let right_exists_${i} = tile.column / ${CHUNK}u + right_chunk_${i} < out_chunks;
    var right_staged_${i} = Chunk();
#end
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    var sum_${i}_${j} = MatrixC();
#end
#end
    var dy_sum = vec4<f32>();
    let sums_dy = tile.row == 0u && lane < ${COLUMNS / 4}u;
    let at = corner(lane);
    let own = lane % ${SUBGROUP}u;
#if PROBE - 3
#else
    var loaded = Chunk();
#end

    var round = 0u;
    for (var start = begin; start < end + ${DEPTH}u; start += ${DEPTH}u) {
        let buffer = round % ${BUFFERS}u * ${BUFFER}u;
        round += 1u;
        // The first round only fetches.
        if start > begin {
#if PROBE - 1
#if PROBE - 3
#for i in 0..LEFT_EACH
            stage(buffer + left_step_${i} * ${BY_ROWS}u + left_chunk_${i} * ${CHUNK_QUADS}u, left_staged_${i});
#end
#for i in 0..RIGHT_EACH
            stage(buffer + ${LEFT_QUADS}u + right_step_${i} * ${BY_COLUMNS}u + right_chunk_${i} * ${CHUNK_QUADS}u, right_staged_${i});
#end
#else
#for i in 0..LEFT_EACH
            loaded += left_staged_${i};
#end
#for i in 0..RIGHT_EACH
            loaded += right_staged_${i};
#end
#end
#end
        }
        workgroupBarrier();
#if PROBE - 1
        if start < end {
#for i in 0..LEFT_EACH
            left_staged_${i} = Chunk();
            if left_exists_${i} && start + left_step_${i} < end {
                let met_${i} = met(pixel_${i}, ky_${i}, kx_${i});
                if met_${i} != NONE {
                    left_staged_${i} = x[met_${i} * in_chunks + channel_${i}];
                }
            }
            pixel_${i} = advanced(pixel_${i}, lines, columns);
#end
#for i in 0..RIGHT_EACH
            right_staged_${i} = Chunk();
            if right_exists_${i} && start + right_step_${i} < end {
                right_staged_${i} = dy[(start + right_step_${i}) * out_chunks + tile.column / ${CHUNK}u + right_chunk_${i}];
            }
#end
        }
#end
        if start > begin {
#if (PROBE - 2) * (PROBE - 3)
#for k in 0..DEPTH / 16
#for j in 0..PATCH_COLUMNS
            let b_${k}_${j} = right_by_rows(buffer + ${LEFT_QUADS + 16 * k * BY_COLUMNS}u + (at.y + ${16 * j}u) / 4u, ${BY_COLUMNS}u, own);
#end
#for i in 0..PATCH_ROWS
            let a_${k}_${i} = left_by_columns(buffer + ${16 * k * BY_ROWS}u + (at.x + ${16 * i}u) / 4u, ${BY_ROWS}u, own);
#for j in 0..PATCH_COLUMNS
            sum_${i}_${j} = multiply_add(a_${k}_${i}, b_${k}_${j}, sum_${i}_${j});
#end
#end
#end
            if sums_dy {
                for (var step = 0u; step < ${DEPTH}u; step++) {
                    dy_sum += vec4<f32>(staged[buffer + ${LEFT_QUADS}u + step * ${BY_COLUMNS}u + lane]);
                }
            }
#end
        }
#if BUFFERS - 1
#else
        workgroupBarrier();
#end
    }

    let base = tile.split * (stored_rows + 1u) * out_c4;
    if sums_dy && tile.column / 4u + lane < out_c4 {
        partials[base + stored_rows * out_c4 + tile.column / 4u + lane] = dy_sum;
    }
#if PROBE - 3
#else
    if loaded.x + loaded.y == loaded.z {
        partials[lane] = vec4<f32>(loaded);
    }
#end
#if PROBE - 2
#else
    // Keeps what is staged alive.
    let kept = staged[lane];
    if kept.x + kept.y == kept.z {
        partials[lane] = vec4<f32>(kept);
    }
#end
#if RESULTS_DIRECT
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    if tile.row + at.x + ${16 * i}u < rows && tile.column + at.y + ${16 * j}u < params.out_c {
        store_partial(sum_${i}_${j}, base + (tile.row + at.x + ${16 * i}u) * out_c4 + (tile.column + at.y + ${16 * j}u) / 4u, out_c4, own);
    }
#end
#end
#else
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
#for turn in 0..WARPS / PATCH_WARPS
    workgroupBarrier();
    if lane / ${SUBGROUP * PATCH_WARPS}u == ${turn}u {
        store_patch(sum_${i}_${j}, patch_at(lane), own);
    }
    workgroupBarrier();
    if lane / ${SUBGROUP * PATCH_WARPS}u == ${turn}u {
        let row = tile.row + at.x + ${16 * i}u + own / 2u;
        let first = tile.column + at.y + ${16 * j}u + lane % 2u * 8u;
        if row < stored_rows && first < params.out_c {
            let to = base + (row * params.out_c + first) / 4u;
            partials[to] = patch_quad(lane, 0u);
            partials[to + 1u] = patch_quad(lane, 1u);
        }
    }
#end
#end
#end
#end
}
