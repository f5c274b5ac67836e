// The kernels of conv2d_lanes.wgsl and conv2d_lanes_small.wgsl, which differ in the size of a tile: LANES invocations a
// workgroup, PIXELS by QUADS results, ROW_QUADS quads of weight rows.
//
// Results are stored as in conv2d_subgroup.wgsl, by a loop, QUADS in each round, in which they move down, for the same reason. Nothing
// returns early either: an invocation beyond the last computes the last tile once more and stores nothing.

@group(0) @binding(1) var<storage, read> x: array<vec4<${ELEMENT}>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<${ELEMENT}>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<${ELEMENT}>>;
@group(0) @binding(5) var<storage, read> dy: array<vec4<${ELEMENT}>>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4<${ELEMENT}>>;
@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

alias Value = vec4<f32>;
#import "shared/conv2d_mask.wgsl"

// One invocation: PIXELS consecutive output pixels by QUADS groups of 4 output channels.
@compute @workgroup_size(${LANES})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
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
#for q in 0..QUADS
    var total_${p}_${q} = vec4<f32>();
#end
#end

    var w_row = 0u;
    for (var ky = 0; ky < i32(params.kernel_h); ky++) {
        for (var kx = 0; kx < i32(params.kernel_w); kx++) {
#for p in 0..PIXELS
            let iy_${p} = row_${p} + ky;
            let ix_${p} = col_${p} + kx;
            let inside_${p} = iy_${p} >= 0 && iy_${p} < i32(params.in_h) && ix_${p} >= 0 && ix_${p} < i32(params.in_w);
            let at_${p} = u32(select(0, (image_${p} + iy_${p}) * i32(params.in_w) + ix_${p}, inside_${p})) * in_c4;
#end
            for (var block = 0u; block < in_c4; block += ${CHANNEL_BLOCK / 4}u) {
#for p in 0..PIXELS
#for q in 0..QUADS
                var sum_${p}_${q} = vec4<f32>();
#end
#end
                let block_end = min(block + ${CHANNEL_BLOCK / 4}u, in_c4);
                for (var c = block; c < block_end; c++) {
#for q in 0..QUADS
#for k in 0..4
                    let w_${q}_${k} = vec4<f32>(weight[w_row + ${k}u * out_c4 + quad_${q}]);
#end
#end
                    w_row += 4u * out_c4;
#for p in 0..PIXELS
                    let x_${p} = select(vec4<f32>(), vec4<f32>(x[at_${p} + c]), inside_${p});
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

#import "shared/conv2d_lanes_store.wgsl"
}

// One invocation: PIXELS consecutive input pixels by QUADS groups of 4 input channels.
@compute @workgroup_size(${LANES})
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let pixels = params.batch * params.in_h * params.in_w;
    let pixel_tiles = (pixels + ${PIXELS - 1}u) / ${PIXELS}u;
    let tiles = pixel_tiles * ((in_c4 + ${QUADS - 1}u) / ${QUADS}u);
    let number = workgroup_index(wid, num) * ${LANES}u + lane;
    let tile = min(number, tiles - 1u);
    let quad = tile / pixel_tiles * ${QUADS}u;
    let first = tile % pixel_tiles * ${PIXELS}u;
#for q in 0..QUADS
    let quad_${q} = min(quad + ${q}u, in_c4 - 1u) * 4u * out_c4;
#end

#import "shared/conv2d_input_phases.wgsl"
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
#for p in 0..PIXELS
            let oy_${p} = row_${p} - ky_steps;
            let ox_${p} = col_${p} - kx_steps;
            let inside_${p} = row_phase_${p} == ky_phase && oy_${p} >= 0 && oy_${p} < i32(params.out_h)
                && col_phase_${p} == kx_phase && ox_${p} >= 0 && ox_${p} < i32(params.out_w);
            let at_${p} = u32(select(0, (image_${p} + oy_${p}) * i32(params.out_w) + ox_${p}, inside_${p})) * out_c4;
#end
#for p in 0..PIXELS
#for q in 0..QUADS
            var sum_${p}_${q} = vec4<f32>();
#end
#end
            for (var o = 0u; o < out_c4; o++) {
#for q in 0..QUADS
#for c in 0..4
                let w_${q}_${c} = vec4<f32>(weight[w_tap + quad_${q} + ${c}u * out_c4 + o]);
#end
#end
#for p in 0..PIXELS
                let dy_${p} = select(vec4<f32>(), vec4<f32>(dy[at_${p} + o]), inside_${p});
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

    let rounds = select(0u, min(${PIXELS}u, pixels - first), number == tile);
    for (var p = 0u; p < rounds; p++) {
#for q in 0..QUADS
        if quad + ${q}u < in_c4 {
            let at = (first + p) * in_c4 + quad + ${q}u;
            dx[at] = vec4<${ELEMENT}>(masked(total_0_${q}, at));
        }
#end
#for r in 0..PIXELS*QUADS-QUADS
        total_${r / QUADS}_${r % QUADS} = total_${r / QUADS + 1}_${r % QUADS};
#end
    }
}

// One invocation: ROW_QUADS quads of weight rows, a row being one (ky, kx, c), by QUADS groups of 4 output channels, summed over
// the pixels of one split. It has the sums of dy at hand too; those of the first rows' tiles are the bias gradient.
@compute @workgroup_size(${LANES})
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let row_quads = params.kernel_h * params.kernel_w * in_c4;
    let row_tiles = (row_quads + ${ROW_QUADS - 1}u) / ${ROW_QUADS}u;
    let tiles = row_tiles * ((out_c4 + ${QUADS - 1}u) / ${QUADS}u);
    let number = workgroup_index(wid, num) * ${LANES}u + lane;
    let index = min(number, tiles * params.splits - 1u);
    let split = index / tiles;
    let tile = index % tiles;
    let row = tile % row_tiles * ${ROW_QUADS}u;
    let quad = tile / row_tiles * ${QUADS}u;
#for q in 0..QUADS
    let quad_${q} = min(quad + ${q}u, out_c4 - 1u);
    var dy_total_${q} = vec4<f32>();
#end
#for r in 0..ROW_QUADS
    let row_${r} = min(row + ${r}u, row_quads - 1u);
    let c_${r} = row_${r} % in_c4;
    let ky_${r} = i32(row_${r} / in_c4 / params.kernel_w) - i32(params.pad_h);
    let kx_${r} = i32(row_${r} / in_c4 % params.kernel_w) - i32(params.pad_w);
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
#for q in 0..QUADS
        var dy_sum_${q} = vec4<f32>();
#end
#for r in 0..ROW_QUADS
#for k in 0..4
#for q in 0..QUADS
        var sum_${r}_${k}_${q} = vec4<f32>();
#end
#end
#end
        let block_end = min(block + ${PIXEL_BLOCK}u, end);
        for (var pixel = block; pixel < block_end; pixel++) {
            let iy = i32(oy * params.stride_h);
            let ix = i32(ox * params.stride_w);
#for q in 0..QUADS
            let dy_${q} = vec4<f32>(dy[pixel * out_c4 + quad_${q}]);
            dy_sum_${q} += dy_${q};
#end
#for r in 0..ROW_QUADS
            let iy_${r} = iy + ky_${r};
            let ix_${r} = ix + kx_${r};
            let inside_${r} = iy_${r} >= 0 && iy_${r} < i32(params.in_h) && ix_${r} >= 0 && ix_${r} < i32(params.in_w);
            let pixel_${r} = select(0, (n * i32(params.in_h) + iy_${r}) * i32(params.in_w) + ix_${r}, inside_${r});
            let x_${r} = select(vec4<f32>(), vec4<f32>(x[u32(pixel_${r}) * in_c4 + c_${r}]), inside_${r});
#for q in 0..QUADS
            sum_${r}_0_${q} += x_${r}.x * dy_${q};
            sum_${r}_1_${q} += x_${r}.y * dy_${q};
            sum_${r}_2_${q} += x_${r}.z * dy_${q};
            sum_${r}_3_${q} += x_${r}.w * dy_${q};
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
#for q in 0..QUADS
    if number == index && row == 0u && quad + ${q}u < out_c4 {
        partials[base + rows * out_c4 + quad + ${q}u] = dy_total_${q};
    }
#end
    let rounds = select(0u, min(${ROW_QUADS}u, row_quads - row) * 4u, number == index);
    for (var i = 0u; i < rounds; i++) {
#for q in 0..QUADS
        if quad + ${q}u < out_c4 {
            partials[base + (row * 4u + i) * out_c4 + quad + ${q}u] = total_0_0_${q};
        }
#end
#for r in 0..ROW_QUADS*4*QUADS-QUADS
        total_${r / (4 * QUADS)}_${r / QUADS % 4}_${r % QUADS} = total_${(r + QUADS) / (4 * QUADS)}_${(r + QUADS) / QUADS % 4}_${r % QUADS};
#end
    }
}
