// 2-D convolution for CPU devices, any channel counts: what conv2d_lanes.wgsl does (formulas and layouts are there),
// with scalar loads and smaller tiles, for maps of 1 to 3 channels.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define LANES 16
#define PIXELS 4
#define CHANNELS 4
#define ROWS 4

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> dy: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;
@group(0) @binding(9) var<storage, read_write> partials: array<f32>;

alias Element = f32;
#import "shared/conv2d_mask.wgsl"

// One invocation: PIXELS consecutive output pixels by CHANNELS output channels.
@compute @workgroup_size(${LANES})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let pixels = params.batch * params.out_h * params.out_w;
    let pixel_tiles = (pixels + ${PIXELS - 1}u) / ${PIXELS}u;
    let tile = workgroup_index(wid, num) * ${LANES}u + lane;
    let channel = tile / pixel_tiles * ${CHANNELS}u;
    let first = tile % pixel_tiles * ${PIXELS}u;
    if channel >= params.out_c {
        return;
    }
#for o in 0..CHANNELS
    let channel_${o} = min(channel + ${o}u, params.out_c - 1u);
#end

#import "shared/conv2d_window_corners.wgsl"
#for p in 0..PIXELS
#for o in 0..CHANNELS
    var total_${p}_${o} = 0.0;
#end
#end

    var w_row = 0u;
    for (var ky = 0; ky < i32(params.kernel_h); ky++) {
        for (var kx = 0; kx < i32(params.kernel_w); kx++) {
#for p in 0..PIXELS
            let iy_${p} = row_${p} + ky;
            let ix_${p} = col_${p} + kx;
            let inside_${p} = iy_${p} >= 0 && iy_${p} < i32(params.in_h) && ix_${p} >= 0 && ix_${p} < i32(params.in_w);
            let at_${p} = u32(select(0, (image_${p} + iy_${p}) * i32(params.in_w) + ix_${p}, inside_${p})) * params.in_c;
#end
#for p in 0..PIXELS
#for o in 0..CHANNELS
            var sum_${p}_${o} = 0.0;
#end
#end
            for (var c = 0u; c < params.in_c; c++) {
#for o in 0..CHANNELS
                let w_${o} = weight[w_row + channel_${o}];
#end
                w_row += params.out_c;
#for p in 0..PIXELS
                let x_${p} = select(0.0, x[at_${p} + c], inside_${p});
#for o in 0..CHANNELS
                sum_${p}_${o} += x_${p} * w_${o};
#end
#end
            }
#for p in 0..PIXELS
#for o in 0..CHANNELS
            total_${p}_${o} += sum_${p}_${o};
#end
#end
        }
    }

#for o in 0..CHANNELS
    let bias_${o} = bias[channel_${o}];
#for p in 0..PIXELS
    if first + ${p}u < pixels && channel + ${o}u < params.out_c {
        let value = total_${p}_${o} + bias_${o};
        y[(first + ${p}u) * params.out_c + channel + ${o}u] = select(value, 0.0, params.relu != 0u && value < 0.0);
    }
#end
#end
}

// One invocation: PIXELS consecutive input pixels by CHANNELS input channels.
@compute @workgroup_size(${LANES})
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let pixels = params.batch * params.in_h * params.in_w;
    let pixel_tiles = (pixels + ${PIXELS - 1}u) / ${PIXELS}u;
    let tile = workgroup_index(wid, num) * ${LANES}u + lane;
    let channel = tile / pixel_tiles * ${CHANNELS}u;
    let first = tile % pixel_tiles * ${PIXELS}u;
    if channel >= params.in_c {
        return;
    }
#for c in 0..CHANNELS
    let channel_${c} = min(channel + ${c}u, params.in_c - 1u) * params.out_c;
#end

#import "shared/conv2d_input_phases.wgsl"
#for p in 0..PIXELS
#for c in 0..CHANNELS
    var total_${p}_${c} = 0.0;
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
            let at_${p} = u32(select(0, (image_${p} + oy_${p}) * i32(params.out_w) + ox_${p}, inside_${p})) * params.out_c;
#end
#for p in 0..PIXELS
#for c in 0..CHANNELS
            var sum_${p}_${c} = 0.0;
#end
#end
            for (var o = 0u; o < params.out_c; o++) {
#for c in 0..CHANNELS
                let w_${c} = weight[w_tap + channel_${c} + o];
#end
#for p in 0..PIXELS
                let dy_${p} = select(0.0, dy[at_${p} + o], inside_${p});
#for c in 0..CHANNELS
                sum_${p}_${c} += dy_${p} * w_${c};
#end
#end
            }
#for p in 0..PIXELS
#for c in 0..CHANNELS
            total_${p}_${c} += sum_${p}_${c};
#end
#end
            w_tap += params.in_c * params.out_c;
            kx_phase += 1u;
            kx_steps = select(kx_steps, kx_steps + 1, kx_phase == params.stride_w);
            kx_phase = select(kx_phase, 0u, kx_phase == params.stride_w);
        }
        ky_phase += 1u;
        ky_steps = select(ky_steps, ky_steps + 1, ky_phase == params.stride_h);
        ky_phase = select(ky_phase, 0u, ky_phase == params.stride_h);
    }

#for c in 0..CHANNELS
#for p in 0..PIXELS
    if first + ${p}u < pixels && channel + ${c}u < params.in_c {
        let at = (first + ${p}u) * params.in_c + channel + ${c}u;
        dx[at] = masked(total_${p}_${c}, at);
    }
#end
#end
}

// One invocation: ROWS weight rows, a row being one (ky, kx, c), by CHANNELS output channels, summed over the pixels of
// one split. It has the sums of dy at hand too; those of the first rows' tiles are the bias gradient.
@compute @workgroup_size(${LANES})
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let rows = params.kernel_h * params.kernel_w * params.in_c;
    let row_tiles = (rows + ${ROWS - 1}u) / ${ROWS}u;
    let tiles = row_tiles * ((params.out_c + ${CHANNELS - 1}u) / ${CHANNELS}u);
    let index = workgroup_index(wid, num) * ${LANES}u + lane;
    let split = index / tiles;
    let tile = index % tiles;
    let row = tile % row_tiles * ${ROWS}u;
    let channel = tile / row_tiles * ${CHANNELS}u;
    if split >= params.splits {
        return;
    }
#for o in 0..CHANNELS
    let channel_${o} = min(channel + ${o}u, params.out_c - 1u);
    var dy_total_${o} = 0.0;
#end
#for r in 0..ROWS
    let row_${r} = min(row + ${r}u, rows - 1u);
    let c_${r} = row_${r} % params.in_c;
    let ky_${r} = i32(row_${r} / params.in_c / params.kernel_w) - i32(params.pad_h);
    let kx_${r} = i32(row_${r} / params.in_c % params.kernel_w) - i32(params.pad_w);
#for o in 0..CHANNELS
    var total_${r}_${o} = 0.0;
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
#for o in 0..CHANNELS
        var dy_sum_${o} = 0.0;
#end
#for r in 0..ROWS
#for o in 0..CHANNELS
        var sum_${r}_${o} = 0.0;
#end
#end
        let block_end = min(block + ${PIXEL_BLOCK}u, end);
        for (var pixel = block; pixel < block_end; pixel++) {
            let iy = i32(oy * params.stride_h);
            let ix = i32(ox * params.stride_w);
#for o in 0..CHANNELS
            let dy_${o} = dy[pixel * params.out_c + channel_${o}];
            dy_sum_${o} += dy_${o};
#end
#for r in 0..ROWS
            let iy_${r} = iy + ky_${r};
            let ix_${r} = ix + kx_${r};
            let inside_${r} = iy_${r} >= 0 && iy_${r} < i32(params.in_h) && ix_${r} >= 0 && ix_${r} < i32(params.in_w);
            let pixel_${r} = select(0, (n * i32(params.in_h) + iy_${r}) * i32(params.in_w) + ix_${r}, inside_${r});
            let x_${r} = select(0.0, x[u32(pixel_${r}) * params.in_c + c_${r}], inside_${r});
#for o in 0..CHANNELS
            sum_${r}_${o} += x_${r} * dy_${o};
#end
#end
            ox = select(ox + 1u, 0u, ox + 1u == params.out_w);
            oy = select(oy, oy + 1u, ox == 0u);
            n = select(n, n + 1, oy == params.out_h);
            oy = select(oy, 0u, oy == params.out_h);
        }
#for o in 0..CHANNELS
        dy_total_${o} += dy_sum_${o};
#end
#for r in 0..ROWS
#for o in 0..CHANNELS
        total_${r}_${o} += sum_${r}_${o};
#end
#end
    }

    let base = split * (rows + 1u) * params.out_c + channel;
#for o in 0..CHANNELS
    if channel + ${o}u < params.out_c {
        if row == 0u {
            partials[base + rows * params.out_c + ${o}u] = dy_total_${o};
        }
#for r in 0..ROWS
        if row + ${r}u < rows {
            partials[base + (row + ${r}u) * params.out_c + ${o}u] = total_${r}_${o};
        }
#end
    }
#end
}
