// 2-D convolution for GPUs, any channel counts, for what conv2d_gemm_*.wgsl leave: maps of 1 to 3 channels on the output
// side, and the input gradient of such on the input side. Formulas and layouts are those of conv2d_lanes.wgsl.
//
//   pass             rows of the result        columns            reduction
//   forward          output pixels             output channels    (ky, kx, c)
//   backward_input   input pixels              input channels     (ky, kx, o)
//   backward_weight  (ky, kx, c)               output channels    output pixels of one split
//
// A workgroup of 8 x 8 invocations computes 64 x 64 results. It stages DEPTH steps of the reduction of both operands in
// workgroup memory (`left`, `right`: 8.5 KiB), zero wherever a position is outside its map or the range; then every
// invocation multiplies its 8 x 8 part: rows 4r..4r+3 and 32+4r..32+4r+3, columns 4c..4c+3 and 32+4c..32+4c+3.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

// Steps of the reduction staged at a time: a quarter of the 64 invocations, which the index arithmetic relies on.
#define DEPTH 16
// vec4s from one step to the next in the staged operands: 16 and one more, against bank conflicts.
#define PITCH 17

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> dy: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;
@group(0) @binding(9) var<storage, read_write> partials: array<f32>;

alias Element = f32;
#import "shared/conv2d_mask.wgsl"

// [step][64 rows] and [step][64 columns].
var<workgroup> left: array<vec4<f32>, ${DEPTH * PITCH}>;
var<workgroup> right: array<vec4<f32>, ${DEPTH * PITCH}>;
// Pixels of the tile (or of the staged steps): rows of the map before the pixel's image, then two coordinates.
var<workgroup> corners: array<vec3<i32>, 64>;

// One invocation's results: element 2 * row + half is the `half` of its columns, row counting its 8 rows.
alias Sums = array<vec4<f32>, 16>;

fn multiply(row: u32, column: u32, sums: ptr<function, Sums>) {
    for (var step = 0u; step < ${DEPTH}u; step++) {
        let at = step * ${PITCH}u;
        let right_0 = right[at + column];
        let right_1 = right[at + 8u + column];
#for i in 0..2
        let left_${i} = left[at + ${8 * i}u + row];
        (*sums)[${8*i}] += left_${i}.x * right_0;
        (*sums)[${8*i+1}] += left_${i}.x * right_1;
        (*sums)[${8*i+2}] += left_${i}.y * right_0;
        (*sums)[${8*i+3}] += left_${i}.y * right_1;
        (*sums)[${8*i+4}] += left_${i}.z * right_0;
        (*sums)[${8*i+5}] += left_${i}.z * right_1;
        (*sums)[${8*i+6}] += left_${i}.w * right_0;
        (*sums)[${8*i+7}] += left_${i}.w * right_1;
#end
    }
}

// The corner of an output pixel's window: rows of the input before its image, row and column in the image. A pixel out
// of range gets a row that is above every image, wherever in the window.
fn window_corner(pixel: u32, end: u32) -> vec3<i32> {
    if pixel >= end {
        return vec3<i32>(0, -0x40000000, 0);
    }
    let line = pixel / params.out_w;
    let n = line / params.out_h;
    let oy = line - n * params.out_h;
    let ox = pixel - line * params.out_w;
    return vec3<i32>(
        i32(n * params.in_h),
        i32(oy * params.stride_h) - i32(params.pad_h),
        i32(ox * params.stride_w) - i32(params.pad_w),
    );
}

// Element of x that (ky, kx, c) meets in a window.
fn x_at(corner: vec3<i32>, ky: u32, kx: u32, c: u32) -> f32 {
    let iy = corner.y + i32(ky);
    let ix = corner.z + i32(kx);
    if iy < 0 || iy >= i32(params.in_h) || ix < 0 || ix >= i32(params.in_w) {
        return 0.0;
    }
    return x[u32((corner.x + iy) * i32(params.in_w) + ix) * params.in_c + c];
}

// Element of dy that meets an input pixel through (ky, kx): its coordinates must be multiples of the stride.
fn dy_at(corner: vec3<i32>, ky: u32, kx: u32, o: u32) -> f32 {
    let top = corner.y - i32(ky);
    let left_edge = corner.z - i32(kx);
    if top < 0 || left_edge < 0 {
        return 0.0;
    }
    let oy = u32(top) / params.stride_h;
    let ox = u32(left_edge) / params.stride_w;
    if oy * params.stride_h != u32(top) || ox * params.stride_w != u32(left_edge) || oy >= params.out_h || ox >= params.out_w {
        return 0.0;
    }
    return dy[((u32(corner.x) + oy) * params.out_w + ox) * params.out_c + o];
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let pixels = params.batch * params.out_h * params.out_w;
    let pixel_tiles = (pixels + 63u) / 64u;
    let group = workgroup_index(wid, num);
    let first = group % pixel_tiles * 64u;
    let channel = group / pixel_tiles * 64u;
    if channel >= params.out_c {
        return;
    }
    corners[lane] = window_corner(first + lane, pixels);
    workgroupBarrier();

    var sums = Sums();
    let row = lane / 8u;
    let column = lane % 8u;
    let steps = params.kernel_h * params.kernel_w * params.in_c;
    for (var start = 0u; start < steps; start += ${DEPTH}u) {
        // x: invocations next to each other read channels next to each other.
        let step = start + lane % ${DEPTH}u;
        let c = step % params.in_c;
        let ky = step / params.in_c / params.kernel_w;
        let kx = step / params.in_c % params.kernel_w;
#for i in 0..4
        let pixels_${i} = lane / ${DEPTH}u + ${4 * i}u;
        var x_${i} = vec4<f32>();
        if step < steps {
            x_${i} = vec4<f32>(
                x_at(corners[pixels_${i} * 4u], ky, kx, c),
                x_at(corners[pixels_${i} * 4u + 1u], ky, kx, c),
                x_at(corners[pixels_${i} * 4u + 2u], ky, kx, c),
                x_at(corners[pixels_${i} * 4u + 3u], ky, kx, c),
            );
        }
        left[lane % ${DEPTH}u * ${PITCH}u + pixels_${i}] = x_${i};
#end
        // weight: 16 invocations read one row of 64 output channels.
        let o = channel + lane % 16u * 4u;
#for i in 0..4
        let step_${i} = lane / 16u + ${4 * i}u;
        var w_${i} = vec4<f32>();
        if start + step_${i} < steps {
            let at = (start + step_${i}) * params.out_c + o;
            if o < params.out_c { w_${i}.x = weight[at]; }
            if o + 1u < params.out_c { w_${i}.y = weight[at + 1u]; }
            if o + 2u < params.out_c { w_${i}.z = weight[at + 2u]; }
            if o + 3u < params.out_c { w_${i}.w = weight[at + 3u]; }
        }
        right[step_${i} * ${PITCH}u + lane % 16u] = w_${i};
#end
        workgroupBarrier();
        multiply(row, column, &sums);
        workgroupBarrier();
    }

#for half in 0..2
#for k in 0..4
    let o_${half}_${k} = channel + ${32 * half + k}u + column * 4u;
    if o_${half}_${k} < params.out_c {
        let b = bias[o_${half}_${k}];
#for i in 0..8
        let pixel_${i} = first + ${i / 4 * 32 + i % 4}u + row * 4u;
        if pixel_${i} < pixels {
            let value = sums[${2 * i + half}][${k}] + b;
            y[pixel_${i} * params.out_c + o_${half}_${k}] = select(value, 0.0, params.relu != 0u && value < 0.0);
        }
#end
    }
#end
#end
}

@compute @workgroup_size(64)
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let pixels = params.batch * params.in_h * params.in_w;
    let pixel_tiles = (pixels + 63u) / 64u;
    let group = workgroup_index(wid, num);
    let first = group % pixel_tiles * 64u;
    let channel = group / pixel_tiles * 64u;
    if channel >= params.in_c {
        return;
    }
    // Rows of dy before the pixel's image, and the pixel's coordinates in the padded input; one out of range is above
    // every image.
    let own = first + lane;
    let line = own / params.in_w;
    let n = line / params.in_h;
    let padded = vec3<i32>(
        i32(n * params.out_h),
        i32(line - n * params.in_h + params.pad_h),
        i32(own - line * params.in_w + params.pad_w),
    );
    corners[lane] = select(vec3<i32>(0, -0x40000000, 0), padded, own < pixels);
    workgroupBarrier();

    var sums = Sums();
    let row = lane / 8u;
    let column = lane % 8u;
    let steps = params.kernel_h * params.kernel_w * params.out_c;
    for (var start = 0u; start < steps; start += ${DEPTH}u) {
        // Both operands: invocations next to each other read output channels next to each other.
        let step = start + lane % ${DEPTH}u;
        let o = step % params.out_c;
        let tap = step / params.out_c;
        let ky = tap / params.kernel_w;
        let kx = tap % params.kernel_w;
#for i in 0..4
        let quad_${i} = lane / ${DEPTH}u + ${4 * i}u;
        var dy_${i} = vec4<f32>();
        var w_${i} = vec4<f32>();
        if step < steps {
            dy_${i} = vec4<f32>(
                dy_at(corners[quad_${i} * 4u], ky, kx, o),
                dy_at(corners[quad_${i} * 4u + 1u], ky, kx, o),
                dy_at(corners[quad_${i} * 4u + 2u], ky, kx, o),
                dy_at(corners[quad_${i} * 4u + 3u], ky, kx, o),
            );
            let c = channel + quad_${i} * 4u;
            let at = (tap * params.in_c + c) * params.out_c + o;
            if c < params.in_c { w_${i}.x = weight[at]; }
            if c + 1u < params.in_c { w_${i}.y = weight[at + params.out_c]; }
            if c + 2u < params.in_c { w_${i}.z = weight[at + 2u * params.out_c]; }
            if c + 3u < params.in_c { w_${i}.w = weight[at + 3u * params.out_c]; }
        }
        left[lane % ${DEPTH}u * ${PITCH}u + quad_${i}] = dy_${i};
        right[lane % ${DEPTH}u * ${PITCH}u + quad_${i}] = w_${i};
#end
        workgroupBarrier();
        multiply(row, column, &sums);
        workgroupBarrier();
    }

#for half in 0..2
#for k in 0..4
    let c_${half}_${k} = channel + ${32 * half + k}u + column * 4u;
    if c_${half}_${k} < params.in_c {
#for i in 0..8
        let pixel_${i} = first + ${i / 4 * 32 + i % 4}u + row * 4u;
        if pixel_${i} < pixels {
            let at = pixel_${i} * params.in_c + c_${half}_${k};
            dx[at] = masked(sums[${2 * i + half}][${k}], at);
        }
#end
    }
#end
#end
}

// The workgroups of the first rows also sum dy: the bias gradient.
@compute @workgroup_size(64)
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let rows = params.kernel_h * params.kernel_w * params.in_c;
    let row_tiles = (rows + 63u) / 64u;
    let tiles = row_tiles * ((params.out_c + 63u) / 64u);
    let group = workgroup_index(wid, num);
    let split = group / tiles;
    let first_row = group % tiles % row_tiles * 64u;
    let channel = group % tiles / row_tiles * 64u;
    if split >= params.splits {
        return;
    }
    let pixels = params.batch * params.out_h * params.out_w;
    let begin = split * params.per_split;
    let end = min(begin + params.per_split, pixels);
    if lane < ${DEPTH}u {
        corners[lane] = window_corner(begin + lane, end);
    }
    workgroupBarrier();

    var sums = Sums();
    var dy_sum_0 = vec4<f32>();
    var dy_sum_1 = vec4<f32>();
    let row = lane / 8u;
    let column = lane % 8u;
    // What this invocation stages: four rows and four output channels, every fourth pixel.
    let o = channel + lane % 16u * 4u;
#for k in 0..4
    let row_${k} = first_row + lane % 16u * 4u + ${k}u;
    let c_${k} = row_${k} % params.in_c;
    let ky_${k} = row_${k} / params.in_c / params.kernel_w;
    let kx_${k} = row_${k} / params.in_c % params.kernel_w;
#end
    for (var start = begin; start < end; start += ${DEPTH}u) {
#for i in 0..4
        let step_${i} = lane / 16u + ${4 * i}u;
        let corner_${i} = corners[step_${i}];
        var x_${i} = vec4<f32>();
        if row_0 < rows { x_${i}.x = x_at(corner_${i}, ky_0, kx_0, c_0); }
        if row_1 < rows { x_${i}.y = x_at(corner_${i}, ky_1, kx_1, c_1); }
        if row_2 < rows { x_${i}.z = x_at(corner_${i}, ky_2, kx_2, c_2); }
        if row_3 < rows { x_${i}.w = x_at(corner_${i}, ky_3, kx_3, c_3); }
        left[step_${i} * ${PITCH}u + lane % 16u] = x_${i};
        var dy_${i} = vec4<f32>();
        if start + step_${i} < end {
            let at = (start + step_${i}) * params.out_c + o;
            if o < params.out_c { dy_${i}.x = dy[at]; }
            if o + 1u < params.out_c { dy_${i}.y = dy[at + 1u]; }
            if o + 2u < params.out_c { dy_${i}.z = dy[at + 2u]; }
            if o + 3u < params.out_c { dy_${i}.w = dy[at + 3u]; }
        }
        right[step_${i} * ${PITCH}u + lane % 16u] = dy_${i};
#end
        workgroupBarrier();
        if lane < ${DEPTH}u {
            corners[lane] = window_corner(start + ${DEPTH}u + lane, end);
        }
        multiply(row, column, &sums);
        if first_row == 0u && row == 0u {
            for (var step = 0u; step < ${DEPTH}u; step++) {
                dy_sum_0 += right[step * ${PITCH}u + column];
                dy_sum_1 += right[step * ${PITCH}u + 8u + column];
            }
        }
        workgroupBarrier();
    }

    let base = split * (rows + 1u) * params.out_c;
#for half in 0..2
#for k in 0..4
    let o_${half}_${k} = channel + ${32 * half + k}u + column * 4u;
    if o_${half}_${k} < params.out_c {
        if first_row == 0u && row == 0u {
            partials[base + rows * params.out_c + o_${half}_${k}] = dy_sum_${half}[${k}];
        }
#for i in 0..8
        let out_row_${i} = first_row + ${i / 4 * 32 + i % 4}u + row * 4u;
        if out_row_${i} < rows {
            partials[base + out_row_${i} * params.out_c + o_${half}_${k}] = sums[${2 * i + half}][${k}];
        }
#end
    }
#end
#end
}
