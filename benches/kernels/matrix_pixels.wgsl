// 2-D convolution in half precision on matrix units, as an implicit matrix product: forward (INPUT 0) and the input gradient
// (INPUT 1, stride 1). Kernel positions are walked outside, channels inside; the channels that are summed are a multiple of DEPTH,
// both channel counts multiples of 16.
//
//   forward          y[pixel, o]  = sum over (ky, kx, c) of x[met, c] * weight[ky, kx, c, o] + bias[o], max(., 0) where params.relu
//   input gradient   dx[pixel, c] = sum over (ky, kx, o) of dy[met, o] * weight[ky, kx, c, o]
//
// One workgroup computes a tile of ROWS pixels by COLUMNS channels. RIGHT_DIRECT 1 (forward only): weights are loaded into matrices
// from where they lie, without being staged. WEIGHT_STEPS: where it is not 0, steps of the reduction that there are weights for.
enable f16;
#if COOPERATIVE
enable wgpu_cooperative_matrix;
#end

#define RESULTS_DIRECT 0
#import "matrix_tile.wgsl"
#define LEFT_QUADS ROWS * BY_STEPS
#if INPUT
#define RIGHT_QUADS COLUMNS * BY_STEPS
#else
#define RIGHT_QUADS (1 - RIGHT_DIRECT) * DEPTH * BY_COLUMNS
#end
#import "matrix.wgsl"

@group(0) @binding(1) var<storage, read> source: array<Chunk>;
#if RIGHT_DIRECT
@group(0) @binding(2) var<storage, read> weight: array<vec4<f16>>;
#else
@group(0) @binding(2) var<storage, read> weight: array<Chunk>;
#end
#if INPUT
#else
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
#end
@group(0) @binding(4) var<storage, read_write> result: array<Chunk>;

#if COOPERATIVE
#import "units_cooperative.wgsl"
#else
#import "units_emulated.wgsl"
#end

@compute @workgroup_size(${THREADS})
fn pixels(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
#if INPUT
    let summed = params.out_c / ${CHUNK}u;
    let channels = params.in_c;
#else
    let summed = params.in_c / ${CHUNK}u;
    let channels = params.out_c;
#end
    let end = params.batch * map_height() * map_width();
    let tile = tile_of(workgroup_index(wid, num), end, channels);
    if tile.split > 0u {
        return;
    }
    let by_weight_row = params.out_c / ${CHUNK}u;
    let rounds_each = summed / ${STEP_CHUNKS}u;
    let rounds = params.kernel_h * params.kernel_w * rounds_each;

    // Left by rows: invocations next to each other read channels next to each other.
#for i in 0..LEFT_EACH
    let left_row_${i} = (lane + ${i * THREADS}u) / ${STEP_CHUNKS}u;
    let left_step_${i} = (lane + ${i * THREADS}u) % ${STEP_CHUNKS}u;
    let pixel_${i} = pixel_of(tile.row + left_row_${i});
    var left_at_${i} = NONE;
    var left_staged_${i} = Chunk();
#end
#for i in 0..RIGHT_EACH * (1 - RIGHT_DIRECT)
#if INPUT
    // Right by columns: likewise.
    let right_row_${i} = (lane + ${i * THREADS}u) / ${STEP_CHUNKS}u;
    let right_step_${i} = (lane + ${i * THREADS}u) % ${STEP_CHUNKS}u;
    let right_exists_${i} = tile.column + right_row_${i} < channels;
#else
    // Right by rows: rows of the filter.
    let right_step_${i} = (lane + ${i * THREADS}u) / ${COLUMNS / CHUNK}u;
    let right_chunk_${i} = (lane + ${i * THREADS}u) % ${COLUMNS / CHUNK}u;
    let right_exists_${i} = tile.column / ${CHUNK}u + right_chunk_${i} < by_weight_row;
#end
    var right_staged_${i} = Chunk();
#end
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    var sum_${i}_${j} = MatrixC();
#end
#end
    let at = corner(lane);
    let own = lane % ${SUBGROUP}u;
#if RIGHT_DIRECT
#for j in 0..PATCH_COLUMNS
    // Matrices behind the last channel read others, and are not stored.
    let column_${j} = min(tile.column + at.y + ${16 * j}u, channels - 16u) / 4u;
#end
#end
#if PROBE - 3
#else
    // Keeps what is loaded alive.
    var loaded = Chunk();
#end

    var ky = 0u;
    var kx = 0u;
    var within = 0u;
    for (var round = 0u; round <= rounds; round++) {
        // The first round only fetches, the last only multiplies.
        let buffer = round % ${BUFFERS}u * ${BUFFER}u;
        if round > 0u {
#if PROBE - 1
#if PROBE - 3
#for i in 0..LEFT_EACH
            stage(buffer + left_row_${i} * ${BY_STEPS}u + left_step_${i} * ${CHUNK_QUADS}u, left_staged_${i});
#end
#for i in 0..RIGHT_EACH * (1 - RIGHT_DIRECT)
#if INPUT
            stage(buffer + ${LEFT_QUADS}u + right_row_${i} * ${BY_STEPS}u + right_step_${i} * ${CHUNK_QUADS}u, right_staged_${i});
#else
            stage(buffer + ${LEFT_QUADS}u + right_step_${i} * ${BY_COLUMNS}u + right_chunk_${i} * ${CHUNK_QUADS}u, right_staged_${i});
#end
#end
#else
#for i in 0..LEFT_EACH
            loaded += left_staged_${i};
#end
#for i in 0..RIGHT_EACH * (1 - RIGHT_DIRECT)
            loaded += right_staged_${i};
#end
#end
#end
        }
        workgroupBarrier();
#if PROBE - 1
        if round < rounds {
            if within == 0u {
#for i in 0..LEFT_EACH
                let met_${i} = met(pixel_${i}, ky, kx);
                left_at_${i} = select(met_${i} * summed + left_step_${i}, NONE, met_${i} == NONE);
#end
            }
#for i in 0..LEFT_EACH
            left_staged_${i} = Chunk();
            if left_at_${i} != NONE {
                left_staged_${i} = source[left_at_${i} + within * ${STEP_CHUNKS}u];
            }
#end
#for i in 0..RIGHT_EACH * (1 - RIGHT_DIRECT)
            right_staged_${i} = Chunk();
#if INPUT
            if right_exists_${i} {
                let row = (ky * params.kernel_w + kx) * params.in_c + tile.column + right_row_${i};
                right_staged_${i} = weight[row * summed + within * ${STEP_CHUNKS}u + right_step_${i}];
            }
#else
#if WEIGHT_STEPS
            if right_exists_${i} && round * ${DEPTH}u + right_step_${i} < ${WEIGHT_STEPS}u {
#else
            if right_exists_${i} {
#end
                right_staged_${i} = weight[(round * ${DEPTH}u + right_step_${i}) * by_weight_row + tile.column / ${CHUNK}u + right_chunk_${i}];
            }
#end
#end
            #import "next_round.wgsl"
        }
#end
        if round > 0u {
#if (PROBE - 2) * (PROBE - 3)
#for k in 0..DEPTH / 16
#for j in 0..PATCH_COLUMNS
#if INPUT
            let b_${k}_${j} = right_by_columns(buffer + ${LEFT_QUADS + 4 * k}u + (at.y + ${16 * j}u) * ${BY_STEPS}u, ${BY_STEPS}u, own);
#else
#if RIGHT_DIRECT
            let b_${k}_${j} = right_from_buffer(((round - 1u) * ${DEPTH}u + ${16 * k}u) * (channels / 4u) + column_${j}, channels / 4u, own);
#else
            let b_${k}_${j} = right_by_rows(buffer + ${LEFT_QUADS + 16 * k * BY_COLUMNS}u + (at.y + ${16 * j}u) / 4u, ${BY_COLUMNS}u, own);
#end
#end
#end
#for i in 0..PATCH_ROWS
            let a_${k}_${i} = left_by_rows(buffer + (at.x + ${16 * i}u) * ${BY_STEPS}u + ${4 * k}u, ${BY_STEPS}u, own);
#for j in 0..PATCH_COLUMNS
            sum_${i}_${j} = multiply_add(a_${k}_${i}, b_${k}_${j}, sum_${i}_${j});
#end
#end
#end
#end
        }
#if BUFFERS - 1
#else
        workgroupBarrier();
#end
    }
#if PROBE - 3
#else
    if loaded.x + loaded.y == loaded.z {
        result[lane] = loaded;
    }
#end
#if PROBE - 2
#else
    // Keeps what is staged alive.
    let kept = staged[lane];
    if kept.x + kept.y == kept.z {
        result[lane] = Chunk(kept);
    }
#end

#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    store_results(half_row(sum_${i}_${j}, lane), lane, tile.row + at.x + ${16 * i}u, tile.column + at.y + ${16 * j}u, end, channels);
#end
#end
}

// Stores an invocation's half row of its subgroup's results, of which the first is in row `row` and column `column`.
fn store_results(results: mat2x4<f32>, lane: u32, row: u32, column: u32, rows: u32, channels: u32) {
    let pixel = row + lane % ${SUBGROUP}u / 2u;
    let first = column + lane % 2u * 8u;
    if pixel >= rows || first >= channels {
        return;
    }
    var low = results[0];
    var high = results[1];
#if INPUT
#else
    low += bias[first / 4u];
    high += bias[first / 4u + 1u];
    if params.relu != 0u {
        low = max(low, vec4<f32>());
        high = max(high, vec4<f32>());
    }
#end
    let to = (pixel * channels + first) / ${CHUNK}u;
#if CHUNK - 4
    result[to] = vec4<u32>(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
#else
    result[to] = vec4<f16>(low);
    result[to + 1u] = vec4<f16>(high);
#end
}
