// The kernels of conv2d_subgroup_narrow_*.wgsl: what shared/conv2d_subgroup.wgsl does, with scalar loads of x.
// How results are stored is said there, too.
//
// A first layer rarely needs its input gradient: there is none here.
//
// A round takes TAPS positions of a kernel row in forward, STEPS pixels in the weight gradient (a divisor of PIXEL_BLOCK), so that
// a sum is read and written once for all of them: whoever imports this says how many.

#define LANES PIXEL_LANES * CHANNEL_LANES
// Results of one lane: pixels by quads of channels, or weight rows by quads of channels.
#define PIXELS 16
#define QUADS 4
#define ROWS 16

@group(0) @binding(1) var<storage, read> x: array<${ELEMENT}>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<${ELEMENT}>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<${ELEMENT}>>;
@group(0) @binding(5) var<storage, read> dy: array<vec4<${ELEMENT}>>;
@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

// A subgroup: PIXEL_LANES * PIXELS output pixels by CHANNEL_LANES * QUADS quads of output channels.
@compute @workgroup_size(${LANES})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
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
    let start_${l} = (i32(pixel_${l} % params.out_w * params.stride_w) - i32(params.pad_w)) * i32(params.in_c);
#end
    let w_lane = min(first_quad + lane, out_c4 - 1u);

#for p in 0..PIXELS
#for q in 0..QUADS
    var total_${p}_${q} = vec4<f32>();
#end
#end
    let positions = i32(params.in_w * params.in_c);
    let run = i32(params.kernel_w * params.in_c);
    var w_row = 0u;
    for (var ky = 0; ky < i32(params.kernel_h); ky++) {
#for l in 0..PIXEL_LANES*PIXELS/LANES
        let iy_${l} = row_${l} + ky;
        let row_inside_${l} = iy_${l} >= 0 && iy_${l} < i32(params.in_h);
        let line_${l} = (image_${l} + iy_${l}) * positions;
#end
#for p in 0..PIXELS
#for q in 0..QUADS
        var sum_${p}_${q} = vec4<f32>();
#end
#end
        for (var j = 0; j < run; j += ${TAPS}) {
#for t in 0..TAPS
            // Positions behind the row count as weight 0.
            let in_row_${t} = j + ${t} < run;
            let w_loaded_${t} = select(vec4<f32>(), vec4<f32>(weight[w_row + select(0u, ${t}u * out_c4, in_row_${t}) + w_lane]), in_row_${t});
#for q in 0..QUADS
            let w_${t}_${q} = subgroupShuffle(w_loaded_${t}, ${q * CHANNEL_LANES}u + grid_column);
#end
#for l in 0..PIXEL_LANES*PIXELS/LANES
            let position_${t}_${l} = start_${l} + j + ${t};
            let inside_${t}_${l} = row_inside_${l} && position_${t}_${l} >= 0 && position_${t}_${l} < positions;
            let x_loaded_${t}_${l} = select(0.0, f32(x[select(0, line_${l} + position_${t}_${l}, inside_${t}_${l})]), inside_${t}_${l});
#end
#end
            w_row += u32(min(${TAPS}, run - j)) * out_c4;
#for p in 0..PIXELS
#for t in 0..TAPS
            let x_${t}_${p} = subgroupShuffle(x_loaded_${t}_${p * PIXEL_LANES / LANES}, ${p * PIXEL_LANES % LANES}u + grid_row);
#end
#for q in 0..QUADS
#for t in 0..TAPS
            sum_${p}_${q} += x_${t}_${p} * w_${t}_${q};
#end
#end
#end
        }
#for p in 0..PIXELS
#for q in 0..QUADS
        total_${p}_${q} += sum_${p}_${q};
#end
#end
    }

#import "shared/conv2d_subgroup_store.wgsl"
}

// A subgroup: PIXEL_LANES * ROWS weight rows, a row being one (ky, kx, c), by CHANNEL_LANES * QUADS quads of output
// channels, summed over the pixels of one split, and the sums of dy: those of the first rows' tiles are the bias gradient.
@compute @workgroup_size(${LANES})
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
    let out_c4 = params.out_c / 4u;
    let run = params.kernel_w * params.in_c;
    let rows = params.kernel_h * run;
    let row_tiles = (rows + ${PIXEL_LANES * ROWS - 1}u) / ${PIXEL_LANES * ROWS}u;
    let tiles = row_tiles * ((out_c4 + ${CHANNEL_LANES * QUADS - 1}u) / ${CHANNEL_LANES * QUADS}u);
    let number = workgroup_index(wid, num);
    let index = min(number, tiles * params.splits - 1u);
    let split = index / tiles;
    let first_row = index % tiles % row_tiles * ${PIXEL_LANES * ROWS}u;
    let first_quad = index % tiles / row_tiles * ${CHANNEL_LANES * QUADS}u;
    let grid_row = lane % ${PIXEL_LANES}u;
    let grid_column = lane / ${PIXEL_LANES}u;
    // What this lane loads at every pixel: rows `lane`, LANES + lane, ..., and quad `lane` of dy.
#for l in 0..PIXEL_LANES*ROWS/LANES
    let row_${l} = min(first_row + ${l * LANES}u + lane, rows - 1u);
    let ky_${l} = i32(row_${l} / run) - i32(params.pad_h);
    let j_${l} = i32(row_${l} % run) - i32(params.pad_w * params.in_c);
#end
    let dy_lane = min(first_quad + lane, out_c4 - 1u);

    var dy_total = vec4<f32>();
#for r in 0..ROWS
#for q in 0..QUADS
    var total_${r}_${q} = vec4<f32>();
#end
#end
    let positions = i32(params.in_w * params.in_c);
    let pixels = params.batch * params.out_h * params.out_w;
    let image_pixels = params.out_h * params.out_w;
    let first = split * params.per_split;
    let end = min(first + params.per_split, pixels);
    var n = i32(first / image_pixels);
    var oy = first % image_pixels / params.out_w;
    var ox = first % params.out_w;
    for (var block = first; block < end; block += ${PIXEL_BLOCK}u) {
        var dy_sum = vec4<f32>();
#for r in 0..ROWS
#for q in 0..QUADS
        var sum_${r}_${q} = vec4<f32>();
#end
#end
        let block_end = min(block + ${PIXEL_BLOCK}u, end);
        for (var pixel = block; pixel < block_end; pixel += ${STEPS}u) {
#for t in 0..STEPS
            let in_block_${t} = pixel + ${t}u < block_end;
            let dy_loaded_${t} = select(vec4<f32>(), vec4<f32>(dy[min(pixel + ${t}u, end - 1u) * out_c4 + dy_lane]), in_block_${t});
            dy_sum += dy_loaded_${t};
#for q in 0..QUADS
            let dy_${t}_${q} = subgroupShuffle(dy_loaded_${t}, ${q * CHANNEL_LANES}u + grid_column);
#end
            let iy_${t} = i32(oy * params.stride_h);
            let start_${t} = i32(ox * params.stride_w * params.in_c);
#for l in 0..PIXEL_LANES*ROWS/LANES
            let iy_${t}_${l} = iy_${t} + ky_${l};
            let position_${t}_${l} = start_${t} + j_${l};
            let inside_${t}_${l} = iy_${t}_${l} >= 0 && iy_${t}_${l} < i32(params.in_h)
                && position_${t}_${l} >= 0 && position_${t}_${l} < positions && in_block_${t};
            let at_${t}_${l} = select(0, (n * i32(params.in_h) + iy_${t}_${l}) * positions + position_${t}_${l}, inside_${t}_${l});
            let x_loaded_${t}_${l} = select(0.0, f32(x[at_${t}_${l}]), inside_${t}_${l});
#end
#for r in 0..ROWS
            let x_${t}_${r} = subgroupShuffle(x_loaded_${t}_${r * PIXEL_LANES / LANES}, ${r * PIXEL_LANES % LANES}u + grid_row);
#end
            ox = select(ox + 1u, 0u, ox + 1u == params.out_w);
            oy = select(oy, oy + 1u, ox == 0u);
            n = select(n, n + 1, oy == params.out_h);
            oy = select(oy, 0u, oy == params.out_h);
#end
#for r in 0..ROWS
#for q in 0..QUADS
#for t in 0..STEPS
            sum_${r}_${q} += x_${t}_${r} * dy_${t}_${q};
#end
#end
#end
        }
        dy_total += dy_sum;
#for r in 0..ROWS
#for q in 0..QUADS
        total_${r}_${q} += sum_${r}_${q};
#end
#end
    }

    let base = split * (rows + 1u) * out_c4;
    if number == index && first_row == 0u && first_quad + lane < out_c4 {
        partials[base + rows * out_c4 + first_quad + lane] = dy_total;
    }
    let rounds = select(0u, min(${ROWS}u, (rows - first_row + ${PIXEL_LANES - 1}u) / ${PIXEL_LANES}u), number == index);
    for (var r = 0u; r < rounds; r++) {
        let row = first_row + r * ${PIXEL_LANES}u + grid_row;
#for q in 0..QUADS
        let quad_${q} = first_quad + ${q * CHANNEL_LANES}u + grid_column;
        if row < rows && quad_${q} < out_c4 {
            partials[base + row * out_c4 + quad_${q}] = total_0_${q};
        }
#end
#for r in 0..ROWS*QUADS-QUADS
        total_${r / QUADS}_${r % QUADS} = total_${r / QUADS + 1}_${r % QUADS};
#end
    }
}
