// The weight gradient of a 2-D convolution in f32 as an implicit matrix product: partial sums over a part of the output pixels each,
// which conv2d_reduce.wgsl adds up. Both channel counts are multiples of 4.
//
//   partials[split, (ky, kx, c), o] = sum over the part's pixels of x[met, c] * dy[pixel, o]; the last row of a part sums dy: dbias
//
// One workgroup computes a tile of ROWS rows by COLUMNS output channels. Pixels are stepped through without a division.
#define INPUT 0
#import "gemm_tile.wgsl"

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4<f32>>;

@compute @workgroup_size(${THREADS})
fn weights(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let rows = params.kernel_h * params.kernel_w * params.in_c;
    let tile = tile_of(workgroup_index(wid, num), rows, params.out_c);
    if tile.split >= params.splits {
        return;
    }
    let first_quad = tile.column / 4u;
    let begin = tile.split * params.per_split;
    let end = min(begin + params.per_split, params.batch * params.out_h * params.out_w);
    let lines = ${DEPTH}u / params.out_w;
    let columns = ${DEPTH}u % params.out_w;
    // Both operands: invocations next to each other read channels next to each other.
#for i in 0..UNITS_EACH
    let unit_${i} = lane + ${i * THREADS}u;
    let is_left_${i} = unit_${i} < ${LEFT_UNITS}u;
    let right_unit_${i} = unit_${i} - ${LEFT_UNITS}u;
    let group_${i} = select(right_unit_${i} / ${RIGHT_QUADS}u, unit_${i} / ${LEFT_QUADS}u, is_left_${i});
    let quad_${i} = select(right_unit_${i} % ${RIGHT_QUADS}u, unit_${i} % ${LEFT_QUADS}u, is_left_${i});
    let row_quad_${i} = tile.row / 4u + quad_${i};
    let tap_${i} = row_quad_${i} / in_c4;
    let ky_${i} = tap_${i} / params.kernel_w;
    let kx_${i} = tap_${i} - ky_${i} * params.kernel_w;
    let exists_${i} = select(unit_${i} < ${UNITS}u && first_quad + quad_${i} < out_c4, row_quad_${i} * 4u < rows, is_left_${i});
    var pixel_${i} = pixel_of(begin + group_${i} * 4u);
    var staged_${i} = mat4x4<f32>();
#end

    var sums = Sums();
#for j in 0..COLUMN_QUADS
    var dy_sum_${j} = vec4<f32>();
#end
#if PROBE - 3
#else
    var loaded = mat4x4<f32>();
#end
    let place = place_of(lane);
    let sums_dy = tile.row == 0u && place.x == 0u;
    var round = 0u;
    for (var start = begin; start < end + ${DEPTH}u; start += ${DEPTH}u) {
        // The first round only fetches.
        let first = round % ${BUFFERS}u * ${GROUPS}u;
        round += 1u;
#if PROBE - 1
        if start > begin {
            #import "gemm_stage.wgsl"
        }
#end
        workgroupBarrier();
#if PROBE - 1
        if start < end {
#for i in 0..UNITS_EACH
            staged_${i} = mat4x4<f32>();
            if exists_${i} && is_left_${i} {
                let places = four_met(pixel_${i}, ky_${i}, kx_${i});
#for p in 0..4
                if places[${p}] != NONE && start + group_${i} * 4u + ${p}u < end {
                    staged_${i}[${p}] = x[places[${p}] * in_c4 + row_quad_${i} - tap_${i} * in_c4];
                }
#end
                pixel_${i} = advanced(pixel_${i}, lines, columns);
            } else if exists_${i} {
#for k in 0..4
                if start + group_${i} * 4u + ${k}u < end {
                    staged_${i}[${k}] = dy[(start + group_${i} * 4u + ${k}u) * out_c4 + first_quad + quad_${i}];
                }
#end
            }
#end
        }
#end
#if (PROBE - 2) * (PROBE - 3)
        if start > begin {
            multiply(first, place.x, place.y, &sums);
            if sums_dy {
                for (var group = first; group < first + ${GROUPS}u; group++) {
#for k in 0..4
#for j in 0..COLUMN_QUADS
                    dy_sum_${j} += right[(group * 4u + ${k}u) * ${RIGHT_QUADS}u + ((place.y + ${j * THREAD_COLUMNS}u) ^ (group * 2u))];
#end
#end
                }
            }
        }
#end
#if BUFFERS - 1
#else
        workgroupBarrier();
#end
    }
#if PROBE - 3
#else
    sums[0] += loaded[0] + loaded[1] + loaded[2] + loaded[3];
#end
#if PROBE - 2
#else
    // Keeps what is staged alive.
    sums[0] += left[lane] + right[lane];
#end

    let base = tile.split * (rows + 1u) * out_c4;
#for j in 0..COLUMN_QUADS
    let quad_of_${j} = first_quad + place.y + ${j * THREAD_COLUMNS}u;
    if quad_of_${j} < out_c4 {
        if sums_dy {
            partials[base + rows * out_c4 + quad_of_${j}] = dy_sum_${j};
        }
#for i in 0..ROW_QUADS
#for r in 0..4
        let row_${i}_${r} = tile.row + (place.x + ${i * THREAD_ROWS}u) * 4u + ${r}u;
        if row_${i}_${r} < rows {
            partials[base + row_${i}_${r} * out_c4 + quad_of_${j}] = sums[${(4 * i + r) * COLUMN_QUADS + j}];
        }
#end
#end
    }
#end
}
