// The kernels of conv2d_lanes_narrow.wgsl and conv2d_lanes_narrow_small.wgsl, which differ in the size of a tile: LANES
// invocations a workgroup, PIXELS by QUADS results, ROWS weight rows. How results are stored is said in conv2d_lanes.wgsl.

@group(0) @binding(1) var<storage, read> x: array<${ELEMENT}>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<${ELEMENT}>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<${ELEMENT}>>;
@group(0) @binding(5) var<storage, read> dy: array<vec4<${ELEMENT}>>;
@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

// One invocation: PIXELS consecutive output pixels by QUADS groups of 4 output channels.
@compute @workgroup_size(${LANES})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let out_c4 = params.out_c / 4u;
    let pixels = params.batch * params.out_h * params.out_w;
    let pixel_tiles = (pixels + ${PIXELS - 1}u) / ${PIXELS}u;
    let tiles = pixel_tiles * ((out_c4 + ${QUADS - 1}u) / ${QUADS}u);
    let number = workgroup_index(wid, num) * ${LANES}u + lane;
    let tile = min(number, tiles - 1u);
    let quad = tile / pixel_tiles * ${QUADS}u;
    let first = tile % pixel_tiles * ${PIXELS}u;
#for q in 0..QUADS
    let quad_${q} = min(quad + ${q}u, out_c4 - 1u);
#end

#import "shared/conv2d_window_corners.wgsl"
#for p in 0..PIXELS
    let start_${p} = col_${p} * i32(params.in_c);
#for q in 0..QUADS
    var total_${p}_${q} = vec4<f32>();
#end
#end

    let positions = i32(params.in_w * params.in_c);
    let run = i32(params.kernel_w * params.in_c);
    var w_row = 0u;
    for (var ky = 0; ky < i32(params.kernel_h); ky++) {
#for p in 0..PIXELS
        let iy_${p} = row_${p} + ky;
        let row_inside_${p} = iy_${p} >= 0 && iy_${p} < i32(params.in_h);
        let line_${p} = (image_${p} + iy_${p}) * positions;
#end
#for p in 0..PIXELS
#for q in 0..QUADS
        var sum_${p}_${q} = vec4<f32>();
#end
#end
        for (var j = 0; j < run; j++) {
#for q in 0..QUADS
            let w_${q} = vec4<f32>(weight[w_row + quad_${q}]);
#end
            w_row += out_c4;
#for p in 0..PIXELS
            let position_${p} = start_${p} + j;
            let inside_${p} = row_inside_${p} && position_${p} >= 0 && position_${p} < positions;
            let x_${p} = select(0.0, f32(x[select(0, line_${p} + position_${p}, inside_${p})]), inside_${p});
#for q in 0..QUADS
            sum_${p}_${q} += x_${p} * w_${q};
#end
#end
        }
#for p in 0..PIXELS
#for q in 0..QUADS
        total_${p}_${q} += sum_${p}_${q};
#end
#end
    }

#import "shared/conv2d_lanes_store.wgsl"
}

// One invocation: ROWS weight rows, a row being one (ky, kx, c), by QUADS groups of 4 output channels, summed over the
// pixels of one split. It has the sums of dy at hand too; those of the first rows' tiles are the bias gradient.
@compute @workgroup_size(${LANES})
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let out_c4 = params.out_c / 4u;
    let run = params.kernel_w * params.in_c;
    let rows = params.kernel_h * run;
    let row_tiles = (rows + ${ROWS - 1}u) / ${ROWS}u;
    let tiles = row_tiles * ((out_c4 + ${QUADS - 1}u) / ${QUADS}u);
    let number = workgroup_index(wid, num) * ${LANES}u + lane;
    let index = min(number, tiles * params.splits - 1u);
    let split = index / tiles;
    let tile = index % tiles;
    let row = tile % row_tiles * ${ROWS}u;
    let quad = tile / row_tiles * ${QUADS}u;
#for q in 0..QUADS
    let quad_${q} = min(quad + ${q}u, out_c4 - 1u);
    var dy_total_${q} = vec4<f32>();
#end
#for r in 0..ROWS
    let row_${r} = min(row + ${r}u, rows - 1u);
    let ky_${r} = i32(row_${r} / run) - i32(params.pad_h);
    let j_${r} = i32(row_${r} % run) - i32(params.pad_w * params.in_c);
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
#for q in 0..QUADS
        var dy_sum_${q} = vec4<f32>();
#end
#for r in 0..ROWS
#for q in 0..QUADS
        var sum_${r}_${q} = vec4<f32>();
#end
#end
        let block_end = min(block + ${PIXEL_BLOCK}u, end);
        for (var pixel = block; pixel < block_end; pixel++) {
            let iy = i32(oy * params.stride_h);
            let start = i32(ox * params.stride_w * params.in_c);
#for q in 0..QUADS
            let dy_${q} = vec4<f32>(dy[pixel * out_c4 + quad_${q}]);
            dy_sum_${q} += dy_${q};
#end
#for r in 0..ROWS
            let iy_${r} = iy + ky_${r};
            let position_${r} = start + j_${r};
            let inside_${r} = iy_${r} >= 0 && iy_${r} < i32(params.in_h) && position_${r} >= 0 && position_${r} < positions;
            let at_${r} = select(0, (n * i32(params.in_h) + iy_${r}) * positions + position_${r}, inside_${r});
            let x_${r} = select(0.0, f32(x[at_${r}]), inside_${r});
#for q in 0..QUADS
            sum_${r}_${q} += x_${r} * dy_${q};
#end
#end
            ox = select(ox + 1u, 0u, ox + 1u == params.out_w);
            oy = select(oy, oy + 1u, ox == 0u);
            n = select(n, n + 1, oy == params.out_h);
            oy = select(oy, 0u, oy == params.out_h);
        }
#for q in 0..QUADS
        dy_total_${q} += dy_sum_${q};
#end
#for r in 0..ROWS
#for q in 0..QUADS
        total_${r}_${q} += sum_${r}_${q};
#end
#end
    }

    let base = split * (rows + 1u) * out_c4;
#for q in 0..QUADS
    if number == index && row == 0u && quad + ${q}u < out_c4 {
        partials[base + rows * out_c4 + quad + ${q}u] = dy_total_${q};
    }
#end
    let rounds = select(0u, min(${ROWS}u, rows - row), number == index);
    for (var r = 0u; r < rounds; r++) {
#for q in 0..QUADS
        if quad + ${q}u < out_c4 {
            partials[base + (row + r) * out_c4 + quad + ${q}u] = total_0_${q};
        }
#end
#for r in 0..ROWS*QUADS-QUADS
        total_${r / QUADS}_${r % QUADS} = total_${r / QUADS + 1}_${r % QUADS};
#end
    }
}
