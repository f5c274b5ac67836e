// The kernels of conv2d_subgroup_*.wgsl, which differ in the width of a subgroup and in how they load x, weight and dy.
//
// A workgroup is one subgroup. Its lanes form a grid of PIXEL_LANES (pixels or weight rows) by CHANNEL_LANES (channels), and
// each computes 16 x 16 results in registers. What conv2d_lanes.wgsl says of loads holds here too, and loading is still much of the work; so no
// value is loaded twice in a subgroup: each lane loads other values, and shuffles hand them to the lanes that need them.
// That makes 12 loads for 1,024 multiply-adds of one of 8 lanes (8 for one of 16) instead of 32.
//
// Pixel (or row) p of grid row g is the subgroup's number p * PIXEL_LANES + g, and channel quad q of grid column h its
// number q * CHANNEL_LANES + h: so which load has a value does not depend on the lane, and which lane has it is known.
//
// Results are stored by a loop, QUADS in each round, in which they move down, so that little code stores them: guarded stores
// and masks, repeated for every result, take drivers longer to compile than all the sums. Its end is read at run time, or
// drivers would unroll it. Nothing returns early either: an invocation that has returned makes llvmpipe mask
// every assignment that follows. A workgroup beyond the last computes the last tile once more and stores nothing.

#define LANES PIXEL_LANES * CHANNEL_LANES
// Results of one lane: pixels by quads of channels, or quads of weight rows by quads of channels.
#define PIXELS 16
#define QUADS 4
#define ROW_QUADS 4
// Pixels that one round of the weight gradient takes: a divisor of PIXEL_BLOCK.
#define STEPS 4

@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<${ELEMENT}>>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4<${ELEMENT}>>;
@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

alias Value = vec4<f32>;
#import "shared/conv2d_mask.wgsl"

// A subgroup: PIXEL_LANES * PIXELS output pixels by CHANNEL_LANES * QUADS quads of output channels.
@compute @workgroup_size(${LANES})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let pixels = params.batch * params.out_h * params.out_w;
    let pixel_tiles = (pixels + ${PIXEL_LANES * PIXELS - 1}u) / ${PIXEL_LANES * PIXELS}u;
    let channel_tiles = (out_c4 + ${CHANNEL_LANES * QUADS - 1}u) / ${CHANNEL_LANES * QUADS}u;
    let number = workgroup_index(wid, num);
    let tile = min(number, pixel_tiles * channel_tiles - 1u);
    let first = select(tile % pixel_tiles, tile / channel_tiles, params.channels_innermost != 0u) * ${PIXEL_LANES * PIXELS}u;
    let first_quad = select(tile / pixel_tiles, tile % channel_tiles, params.channels_innermost != 0u) * ${CHANNEL_LANES * QUADS}u;
    let grid_row = lane % ${PIXEL_LANES}u;
    let grid_column = lane / ${PIXEL_LANES}u;
    // What this lane loads: pixels `lane`, LANES + lane, ..., and of every row of the filter quad `lane`.
    let image_pixels = params.out_h * params.out_w;
#for l in 0..PIXEL_LANES*PIXELS/LANES
    let pixel_${l} = first + ${l * LANES}u + lane;
    let image_${l} = i32(min(pixel_${l} / image_pixels, params.batch - 1u) * params.in_h);
    let row_${l} = i32(pixel_${l} % image_pixels / params.out_w * params.stride_h) - i32(params.pad_h);
    let col_${l} = i32(pixel_${l} % params.out_w * params.stride_w) - i32(params.pad_w);
#end
    let w_lane = min(first_quad + lane, out_c4 - 1u);

#for p in 0..PIXELS
#for q in 0..QUADS
    var total_${p}_${q} = vec4<f32>();
#end
#end
    var w_row = 0u;
    for (var ky = 0; ky < i32(params.kernel_h); ky++) {
        for (var kx = 0; kx < i32(params.kernel_w); kx++) {
#for l in 0..PIXEL_LANES*PIXELS/LANES
            let iy_${l} = row_${l} + ky;
            let ix_${l} = col_${l} + kx;
            let inside_${l} = iy_${l} >= 0 && iy_${l} < i32(params.in_h) && ix_${l} >= 0 && ix_${l} < i32(params.in_w);
            let at_${l} = u32(select(0, (image_${l} + iy_${l}) * i32(params.in_w) + ix_${l}, inside_${l})) * in_c4;
#end
            for (var block = 0u; block < in_c4; block += ${CHANNEL_BLOCK / 4}u) {
#for p in 0..PIXELS
#for q in 0..QUADS
                var sum_${p}_${q} = vec4<f32>();
#end
#end
                let block_end = min(block + ${CHANNEL_BLOCK / 4}u, in_c4);
                for (var c = block; c < block_end; c++) {
#for k in 0..4
                    let w_loaded_${k} = load_weight(w_row + ${k}u * out_c4 + w_lane);
#for q in 0..QUADS
                    let w_${q}_${k} = subgroupShuffle(w_loaded_${k}, ${q * CHANNEL_LANES}u + grid_column);
#end
#end
                    w_row += 4u * out_c4;
#for l in 0..PIXEL_LANES*PIXELS/LANES
                    let x_loaded_${l} = select(vec4<f32>(), load_x(at_${l} + c), inside_${l});
#end
#for p in 0..PIXELS
                    let x_${p} = subgroupShuffle(x_loaded_${p * PIXEL_LANES / LANES}, ${p * PIXEL_LANES % LANES}u + grid_row);
#for q in 0..QUADS
                    sum_${p}_${q} += x_${p}.x * w_${q}_0;
                    sum_${p}_${q} += x_${p}.y * w_${q}_1;
                    sum_${p}_${q} += x_${p}.z * w_${q}_2;
                    sum_${p}_${q} += x_${p}.w * w_${q}_3;
#end
#end
                }
#for p in 0..PIXELS
#for q in 0..QUADS
                total_${p}_${q} += sum_${p}_${q};
#end
#end
            }
        }
    }

#import "shared/conv2d_subgroup_store.wgsl"
}

// A subgroup: PIXEL_LANES * PIXELS input pixels by CHANNEL_LANES * QUADS quads of input channels. A position of dy
// meets kernel position k where (input + pad - k) / stride is exact: with input + pad = stride * row + phase and
// k = stride * steps + k_phase that is row - steps, and exact where the phases agree.
@compute @workgroup_size(${LANES})
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let pixels = params.batch * params.in_h * params.in_w;
    let pixel_tiles = (pixels + ${PIXEL_LANES * PIXELS - 1}u) / ${PIXEL_LANES * PIXELS}u;
    let channel_tiles = (in_c4 + ${CHANNEL_LANES * QUADS - 1}u) / ${CHANNEL_LANES * QUADS}u;
    let number = workgroup_index(wid, num);
    let tile = min(number, pixel_tiles * channel_tiles - 1u);
    let first = select(tile % pixel_tiles, tile / channel_tiles, params.channels_innermost != 0u) * ${PIXEL_LANES * PIXELS}u;
    let first_quad = select(tile / pixel_tiles, tile % channel_tiles, params.channels_innermost != 0u) * ${CHANNEL_LANES * QUADS}u;
    let grid_row = lane % ${PIXEL_LANES}u;
    let grid_column = lane / ${PIXEL_LANES}u;
    // What this lane loads: pixels `lane`, LANES + lane, ..., and of every filter channels `lane`, LANES + lane, ...
    let image_pixels = params.in_h * params.in_w;
#for l in 0..PIXEL_LANES*PIXELS/LANES
    let pixel_${l} = first + ${l * LANES}u + lane;
    let image_${l} = i32(min(pixel_${l} / image_pixels, params.batch - 1u) * params.out_h);
    let padded_y_${l} = pixel_${l} % image_pixels / params.in_w + params.pad_h;
    let row_${l} = i32(padded_y_${l} / params.stride_h);
    let row_phase_${l} = padded_y_${l} % params.stride_h;
    let padded_x_${l} = pixel_${l} % params.in_w + params.pad_w;
    let col_${l} = i32(padded_x_${l} / params.stride_w);
    let col_phase_${l} = padded_x_${l} % params.stride_w;
#end
#for l in 0..CHANNEL_LANES*QUADS*4/LANES
    let w_lane_${l} = min(first_quad * 4u + ${l * LANES}u + lane, params.in_c - 1u) * out_c4;
#end

#for p in 0..PIXELS
#for q in 0..QUADS
    var total_${p}_${q} = vec4<f32>();
#end
#end
    var w_tap = 0u;
    var ky_steps = 0;
    var ky_phase = 0u;
    for (var ky = 0u; ky < params.kernel_h; ky++) {
        var kx_steps = 0;
        var kx_phase = 0u;
        for (var kx = 0u; kx < params.kernel_w; kx++) {
#for l in 0..PIXEL_LANES*PIXELS/LANES
            let oy_${l} = row_${l} - ky_steps;
            let ox_${l} = col_${l} - kx_steps;
            let inside_${l} = row_phase_${l} == ky_phase && oy_${l} >= 0 && oy_${l} < i32(params.out_h)
                && col_phase_${l} == kx_phase && ox_${l} >= 0 && ox_${l} < i32(params.out_w);
            let at_${l} = u32(select(0, (image_${l} + oy_${l}) * i32(params.out_w) + ox_${l}, inside_${l})) * out_c4;
#end
#for p in 0..PIXELS
#for q in 0..QUADS
            var sum_${p}_${q} = vec4<f32>();
#end
#end
            for (var o = 0u; o < out_c4; o++) {
#for l in 0..CHANNEL_LANES*QUADS*4/LANES
                let w_loaded_${l} = load_weight(w_tap + w_lane_${l} + o);
#end
                // Channel c of quad q: w_q_c. Number q * CHANNEL_LANES + grid_column of the quads, four channels each.
#for q in 0..QUADS
#for c in 0..4
                let w_${q}_${c} = subgroupShuffle(w_loaded_${q * CHANNEL_LANES * 4 / LANES}, ${q * CHANNEL_LANES * 4 % LANES + c}u + grid_column * 4u);
#end
#end
#for l in 0..PIXEL_LANES*PIXELS/LANES
                let dy_loaded_${l} = select(vec4<f32>(), load_dy(at_${l} + o), inside_${l});
#end
#for p in 0..PIXELS
                let dy_${p} = subgroupShuffle(dy_loaded_${p * PIXEL_LANES / LANES}, ${p * PIXEL_LANES % LANES}u + grid_row);
#for q in 0..QUADS
                sum_${p}_${q} += dy_${p}.x * vec4<f32>(w_${q}_0.x, w_${q}_1.x, w_${q}_2.x, w_${q}_3.x);
                sum_${p}_${q} += dy_${p}.y * vec4<f32>(w_${q}_0.y, w_${q}_1.y, w_${q}_2.y, w_${q}_3.y);
                sum_${p}_${q} += dy_${p}.z * vec4<f32>(w_${q}_0.z, w_${q}_1.z, w_${q}_2.z, w_${q}_3.z);
                sum_${p}_${q} += dy_${p}.w * vec4<f32>(w_${q}_0.w, w_${q}_1.w, w_${q}_2.w, w_${q}_3.w);
#end
#end
            }
#for p in 0..PIXELS
#for q in 0..QUADS
            total_${p}_${q} += sum_${p}_${q};
#end
#end
            w_tap += params.in_c * out_c4;
            kx_phase += 1u;
            kx_steps = select(kx_steps, kx_steps + 1, kx_phase == params.stride_w);
            kx_phase = select(kx_phase, 0u, kx_phase == params.stride_w);
        }
        ky_phase += 1u;
        ky_steps = select(ky_steps, ky_steps + 1, ky_phase == params.stride_h);
        ky_phase = select(ky_phase, 0u, ky_phase == params.stride_h);
    }

    let rounds = select(0u, min(${PIXELS}u, (pixels - first + ${PIXEL_LANES - 1}u) / ${PIXEL_LANES}u), number == tile);
    for (var p = 0u; p < rounds; p++) {
        let pixel = first + p * ${PIXEL_LANES}u + grid_row;
#for q in 0..QUADS
        let quad_${q} = first_quad + ${q * CHANNEL_LANES}u + grid_column;
        if pixel < pixels && quad_${q} < in_c4 {
            let at = pixel * in_c4 + quad_${q};
            dx[at] = vec4<${ELEMENT}>(masked(total_0_${q}, at));
        }
#end
#for r in 0..PIXELS*QUADS-QUADS
        total_${r / QUADS}_${r % QUADS} = total_${r / QUADS + 1}_${r % QUADS};
#end
    }
}

// A subgroup: PIXEL_LANES * ROW_QUADS quads of weight rows, a row being one (ky, kx, c), by CHANNEL_LANES * QUADS quads
// of output channels, summed over the pixels of one split. It has the sums of dy at hand too; those of the first rows' tiles
// are the bias gradient.
@compute @workgroup_size(${LANES})
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let row_quads = params.kernel_h * params.kernel_w * in_c4;
    let row_tiles = (row_quads + ${PIXEL_LANES * ROW_QUADS - 1}u) / ${PIXEL_LANES * ROW_QUADS}u;
    let tiles = row_tiles * ((out_c4 + ${CHANNEL_LANES * QUADS - 1}u) / ${CHANNEL_LANES * QUADS}u);
    let number = workgroup_index(wid, num);
    let index = min(number, tiles * params.splits - 1u);
    let split = index / tiles;
    let first_row = index % tiles % row_tiles * ${PIXEL_LANES * ROW_QUADS}u;
    let first_quad = index % tiles / row_tiles * ${CHANNEL_LANES * QUADS}u;
    let grid_row = lane % ${PIXEL_LANES}u;
    let grid_column = lane / ${PIXEL_LANES}u;
    // What this lane loads at every pixel: row quads `lane`, LANES + lane, ..., and quad `lane` of dy.
#for l in 0..PIXEL_LANES*ROW_QUADS/LANES
    let row_${l} = min(first_row + ${l * LANES}u + lane, row_quads - 1u);
    let c_${l} = row_${l} % in_c4;
    let ky_${l} = i32(row_${l} / in_c4 / params.kernel_w) - i32(params.pad_h);
    let kx_${l} = i32(row_${l} / in_c4 % params.kernel_w) - i32(params.pad_w);
#end
    let dy_lane = min(first_quad + lane, out_c4 - 1u);

    var dy_total = vec4<f32>();
#for r in 0..ROW_QUADS
#for k in 0..4
#for q in 0..QUADS
    var total_${r}_${k}_${q} = vec4<f32>();
#end
#end
#end
    let pixels = params.batch * params.out_h * params.out_w;
    let image_pixels = params.out_h * params.out_w;
    let first = split * params.per_split;
    let end = min(first + params.per_split, pixels);
    var n = i32(first / image_pixels);
    var oy = first % image_pixels / params.out_w;
    var ox = first % params.out_w;
    for (var block = first; block < end; block += ${PIXEL_BLOCK}u) {
        var dy_sum = vec4<f32>();
#for r in 0..ROW_QUADS
#for k in 0..4
#for q in 0..QUADS
        var sum_${r}_${k}_${q} = vec4<f32>();
#end
#end
#end
        let block_end = min(block + ${PIXEL_BLOCK}u, end);
        // STEPS pixels at a time, so that a sum is read and written once for all of them: the sums outnumber registers.
        for (var pixel = block; pixel < block_end; pixel += ${STEPS}u) {
#for t in 0..STEPS
            let in_block_${t} = pixel + ${t}u < block_end;
            let dy_at_${t} = min(pixel + ${t}u, end - 1u) * out_c4 + dy_lane;
            let dy_loaded_${t} = select(vec4<f32>(), load_dy(dy_at_${t}), in_block_${t});
            dy_sum += dy_loaded_${t};
#for q in 0..QUADS
            let dy_${t}_${q} = subgroupShuffle(dy_loaded_${t}, ${q * CHANNEL_LANES}u + grid_column);
#end
            let iy_${t} = i32(oy * params.stride_h);
            let ix_${t} = i32(ox * params.stride_w);
#for l in 0..PIXEL_LANES*ROW_QUADS/LANES
            let iy_${t}_${l} = iy_${t} + ky_${l};
            let ix_${t}_${l} = ix_${t} + kx_${l};
            let inside_${t}_${l} = iy_${t}_${l} >= 0 && iy_${t}_${l} < i32(params.in_h)
                && ix_${t}_${l} >= 0 && ix_${t}_${l} < i32(params.in_w) && in_block_${t};
            let pixel_${t}_${l} = select(0, (n * i32(params.in_h) + iy_${t}_${l}) * i32(params.in_w) + ix_${t}_${l}, inside_${t}_${l});
            let at_${t}_${l} = u32(pixel_${t}_${l}) * in_c4 + c_${l};
            let x_loaded_${t}_${l} = select(vec4<f32>(), load_x(at_${t}_${l}), inside_${t}_${l});
#end
#for r in 0..ROW_QUADS
            let x_${t}_${r} = subgroupShuffle(x_loaded_${t}_${r * PIXEL_LANES / LANES}, ${r * PIXEL_LANES % LANES}u + grid_row);
#end
            ox = select(ox + 1u, 0u, ox + 1u == params.out_w);
            oy = select(oy, oy + 1u, ox == 0u);
            n = select(n, n + 1, oy == params.out_h);
            oy = select(oy, 0u, oy == params.out_h);
#end
#for r in 0..ROW_QUADS
#for k in 0..4
#for q in 0..QUADS
#for t in 0..STEPS
            sum_${r}_${k}_${q} += x_${t}_${r}[${k}] * dy_${t}_${q};
#end
#end
#end
#end
        }
        dy_total += dy_sum;
#for r in 0..ROW_QUADS
#for k in 0..4
#for q in 0..QUADS
        total_${r}_${k}_${q} += sum_${r}_${k}_${q};
#end
#end
#end
    }

    let rows = row_quads * 4u;
    let base = split * (rows + 1u) * out_c4;
    if number == index && first_row == 0u && first_quad + lane < out_c4 {
        partials[base + rows * out_c4 + first_quad + lane] = dy_total;
    }
    // A row in each round, four of a quad one after the other.
    let rounds = select(0u, min(${ROW_QUADS}u, (row_quads - first_row + ${PIXEL_LANES - 1}u) / ${PIXEL_LANES}u) * 4u, number == index);
    for (var i = 0u; i < rounds; i++) {
        let row = (first_row + i / 4u * ${PIXEL_LANES}u + grid_row) * 4u + i % 4u;
#for q in 0..QUADS
        let quad_${q} = first_quad + ${q * CHANNEL_LANES}u + grid_column;
        if row < rows && quad_${q} < out_c4 {
            partials[base + row * out_c4 + quad_${q}] = total_0_0_${q};
        }
#end
#for r in 0..ROW_QUADS*4*QUADS-QUADS
        total_${r / (4 * QUADS)}_${r / QUADS % 4}_${r % QUADS} = total_${(r + QUADS) / (4 * QUADS)}_${(r + QUADS) / QUADS % 4}_${r % QUADS};
#end
    }
}
