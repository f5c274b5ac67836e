// 2-D convolution in f32 as an implicit matrix product: forward (INPUT 0) and the input gradient (INPUT 1, stride 1). Kernel
// positions are walked outside, channels inside; the channels that are summed are a multiple of DEPTH, both channel counts of 4.
//
//   forward          y[pixel, o]  = sum over (ky, kx, c) of x[met, c] * weight[ky, kx, c, o] + bias[o], max(., 0) where params.relu
//   input gradient   dx[pixel, c] = sum over (ky, kx, o) of dy[met, o] * weight[ky, kx, c, o]
//
// One workgroup computes a tile of ROWS pixels by COLUMNS channels. A unit of staging is 4 steps of one quad, as a matrix whose
// columns are the steps.
#import "gemm_tile.wgsl"

@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
#if INPUT
#else
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
#end
@group(0) @binding(4) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(${THREADS})
fn pixels(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
#if INPUT
    let summed = params.out_c / 4u;
    let channels = params.in_c / 4u;
#else
    let summed = params.in_c / 4u;
    let channels = params.out_c / 4u;
#end
    let end = params.batch * map_height() * map_width();
    let tile = tile_of(workgroup_index(wid, num), end, channels * 4u);
    if tile.split > 0u {
        return;
    }
    let first_quad = tile.column / 4u;
    let rounds_each = summed / ${GROUPS}u;
    let rounds = params.kernel_h * params.kernel_w * rounds_each;
    // Left, and right in the input gradient: invocations next to each other read channels next to each other.
#for i in 0..UNITS_EACH
    let unit_${i} = lane + ${i * THREADS}u;
    let is_left_${i} = unit_${i} < ${LEFT_UNITS}u;
    let right_unit_${i} = unit_${i} - ${LEFT_UNITS}u;
#if INPUT
    let group_${i} = unit_${i} % ${GROUPS}u;
    let quad_${i} = select(right_unit_${i}, unit_${i}, is_left_${i}) / ${GROUPS}u;
#else
    let group_${i} = select(right_unit_${i} / ${RIGHT_QUADS}u, unit_${i} % ${GROUPS}u, is_left_${i});
    let quad_${i} = select(right_unit_${i} % ${RIGHT_QUADS}u, unit_${i} / ${GROUPS}u, is_left_${i});
#end
    let pixel_${i} = pixel_of(tile.row + quad_${i} * 4u);
    let right_exists_${i} = unit_${i} < ${UNITS}u && first_quad + quad_${i} < channels;
    var left_at_${i} = vec4<u32>(NONE);
    var staged_${i} = mat4x4<f32>();
#end
    var sums = Sums();
#if PROBE - 3
#else
    // Keeps what is loaded alive.
    var loaded = mat4x4<f32>();
#end
    let place = place_of(lane);

    var ky = 0u;
    var kx = 0u;
    var within = 0u;
    for (var round = 0u; round <= rounds; round++) {
        // The first round only fetches, the last only multiplies.
        let first = round % ${BUFFERS}u * ${GROUPS}u;
#if PROBE - 1
        if round > 0u {
            #import "gemm_stage.wgsl"
        }
#end
        workgroupBarrier();
#if PROBE - 1
        if round < rounds {
#for i in 0..UNITS_EACH
            var fetched_${i} = mat4x4<f32>();
            if is_left_${i} {
                if within == 0u {
                    let places = four_met(pixel_${i}, ky, kx);
                    left_at_${i} = select(places * summed + group_${i}, vec4<u32>(NONE), places == vec4<u32>(NONE));
                }
#for p in 0..4
                if left_at_${i}[${p}] != NONE {
                    fetched_${i}[${p}] = source[left_at_${i}[${p}] + within * ${GROUPS}u];
                }
#end
                staged_${i} = transpose(fetched_${i});
            } else {
                if right_exists_${i} {
#if INPUT
                    let row = (ky * params.kernel_w + kx) * params.in_c + (first_quad + quad_${i}) * 4u;
#for c in 0..4
                    fetched_${i}[${c}] = weight[(row + ${c}u) * summed + within * ${GROUPS}u + group_${i}];
#end
                }
                staged_${i} = transpose(fetched_${i});
#else
#for k in 0..4
                    fetched_${i}[${k}] = weight[(round * ${DEPTH}u + group_${i} * 4u + ${k}u) * channels + first_quad + quad_${i}];
#end
                }
                staged_${i} = fetched_${i};
#end
            }
#end
            #import "next_round.wgsl"
        }
#end
#if (PROBE - 2) * (PROBE - 3)
        if round > 0u {
            multiply(first, place.x, place.y, &sums);
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

#for j in 0..COLUMN_QUADS
    let quad_of_${j} = first_quad + place.y + ${j * THREAD_COLUMNS}u;
    if quad_of_${j} < channels {
#for i in 0..ROW_QUADS
#for r in 0..4
        let pixel_${i}_${r} = tile.row + (place.x + ${i * THREAD_ROWS}u) * 4u + ${r}u;
        if pixel_${i}_${r} < end {
            var value = sums[${(4 * i + r) * COLUMN_QUADS + j}];
#if INPUT
#else
            value += bias[quad_of_${j}];
            if params.relu != 0u {
                value = max(value, vec4<f32>());
            }
#end
            result[pixel_${i}_${r} * channels + quad_of_${j}] = value;
        }
#end
#end
    }
#end
}
