// The kernels of conv2d_matrix_*.wgsl, conv2d_simdgroup_*.wgsl and conv2d_emulated_*.wgsl, which differ in the size of a tile
// and in who multiplies: what they import behind this holds the staged operands and multiplies them.
// Operands are stored as Element, which the including shader declares: f16, or f32 where the units take it. Sums, bias and
// partials are f32. Channel counts in memory
// are multiples of 4.
//
//   pass             rows of the result (left)   columns (right)    reduction
//   forward          output pixels               output channels    (ky, kx, c)
//   backward_input   input pixels                input channels     (ky, kx, o)
//   backward_weight  (ky, kx, c)                 output channels    output pixels of one split
//
// A workgroup is WARP_ROWS x WARP_COLUMNS subgroups of 32; each computes PATCH_ROWS x PATCH_COLUMNS matrices of 16 x 16.
// DEPTH steps of the reduction of both operands are staged in workgroup memory at a time, each in the order in which it lies
// in its buffer, so that staging copies vec4s as they are; what comes next is fetched into registers while they are
// multiplied. Positions outside a map, and steps behind the last, are 0.
#define DEPTH 32
#define SUBGROUP 32
#define THREADS SUBGROUP * WARP_ROWS * WARP_COLUMNS
#define ROWS 16 * PATCH_ROWS * WARP_ROWS
#define COLUMNS 16 * PATCH_COLUMNS * WARP_COLUMNS
// vec4s from one row of a staged operand to the next, two of them against bank conflicts: steps, rows or columns in a row.
#define BY_STEPS DEPTH / 4 + 2
#define BY_ROWS ROWS / 4 + 2
#define BY_COLUMNS COLUMNS / 4 + 2
// vec4s that one invocation stages.
#define LEFT_EACH ROWS * DEPTH / 4 / THREADS
#define RIGHT_EACH COLUMNS * DEPTH / 4 / THREADS

@group(0) @binding(1) var<storage, read> x: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<Element>>;
@group(0) @binding(5) var<storage, read> dy: array<vec4<Element>>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4<Element>>;
@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

alias Value = vec4<f32>;
#import "shared/conv2d_mask.wgsl"

// A tile of a matrix: its first row, its first quad of columns, and which part of the reduction it sums.
struct Tile {
    first: u32,
    first_quad: u32,
    split: u32,
}

// Tile number `index` of `rows` by 4 * `quads` results: rows vary fastest, splits slowest.
fn tile_of(index: u32, rows: u32, quads: u32) -> Tile {
    let row_tiles = (rows + ${ROWS - 1}u) / ${ROWS}u;
    let tiles = row_tiles * ((quads + ${COLUMNS / 4 - 1}u) / ${COLUMNS / 4}u);
    let within = index % tiles;
    return Tile(within % row_tiles * ${ROWS}u, within / row_tiles * ${COLUMNS / 4}u, index / tiles);
}

// A pixel of a map: rows of the other map before its image, and the coordinates that kernel position (0, 0) meets there,
// times the stride in the input gradient.
struct Pixel {
    image: i32,
    row: i32,
    column: i32,
}

const NOWHERE: i32 = -0x40000000;

// An output pixel, which looks at the input; one from `end` on is above every image.
fn output_pixel(pixel: u32, end: u32) -> Pixel {
    let line = pixel / params.out_w;
    let n = line / params.out_h;
    let row = i32((line - n * params.out_h) * params.stride_h) - i32(params.pad_h);
    let column = i32((pixel - line * params.out_w) * params.stride_w) - i32(params.pad_w);
    return Pixel(i32(n * params.in_h), select(NOWHERE, row, pixel < end), column);
}

// An input pixel, which looks at the output: its coordinates in the padded input.
fn input_pixel(pixel: u32, end: u32) -> Pixel {
    let line = pixel / params.in_w;
    let n = line / params.in_h;
    let row = i32(line - n * params.in_h + params.pad_h);
    return Pixel(i32(n * params.out_h), select(NOWHERE, row, pixel < end), i32(pixel - line * params.in_w + params.pad_w));
}

// Quad c4 of x where output pixel `pixel` meets kernel position (ky, kx).
fn x_at(pixel: Pixel, ky: u32, kx: u32, c4: u32, within: bool) -> vec4<Element> {
    let iy = pixel.row + i32(ky);
    let ix = pixel.column + i32(kx);
    var value = vec4<Element>();
    if within && iy >= 0 && iy < i32(params.in_h) && ix >= 0 && ix < i32(params.in_w) {
        value = x[u32((pixel.image + iy) * i32(params.in_w) + ix) * (params.in_c / 4u) + c4];
    }
    return value;
}

// Quad o4 of dy where input pixel `pixel` meets kernel position (ky, kx): coordinates must be multiples of the stride.
fn dy_at(pixel: Pixel, ky: u32, kx: u32, o4: u32, within: bool) -> vec4<Element> {
    let top = pixel.row - i32(ky);
    let left_edge = pixel.column - i32(kx);
    let oy = top / i32(params.stride_h);
    let ox = left_edge / i32(params.stride_w);
    let exact = oy * i32(params.stride_h) == top && ox * i32(params.stride_w) == left_edge;
    var value = vec4<Element>();
    if within && exact && top >= 0 && oy < i32(params.out_h) && left_edge >= 0 && ox < i32(params.out_w) {
        value = dy[u32((pixel.image + oy) * i32(params.out_w) + ox) * (params.out_c / 4u) + o4];
    }
    return value;
}

// Where this subgroup's results begin in the tile: rows, columns.
fn corner(lane: u32) -> vec2<u32> {
    let subgroup = lane / ${SUBGROUP}u;
    return vec2<u32>(subgroup / ${WARP_COLUMNS}u * ${16 * PATCH_ROWS}u, subgroup % ${WARP_COLUMNS}u * ${16 * PATCH_COLUMNS}u);
}

// The invocation's half row of patch number `patch`, after the subgroup has stored it: two quads.
fn half_row(lane: u32, half: u32) -> vec4<f32> {
    return patch_quad(lane / ${SUBGROUP}u * 64u + lane % ${SUBGROUP}u * 2u + half);
}

@compute @workgroup_size(${THREADS})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let end = params.batch * params.out_h * params.out_w;
    let tile = tile_of(workgroup_index(wid, num), end, out_c4);
    if tile.split > 0u {
        return;
    }
    let steps = params.kernel_h * params.kernel_w * params.in_c;
    // Left by rows: invocations next to each other read channels next to each other; right by rows: rows of the filter.
#for i in 0..LEFT_EACH
    let left_row_${i} = (lane + ${i * THREADS}u) / ${DEPTH / 4}u;
    let left_step_${i} = (lane + ${i * THREADS}u) % ${DEPTH / 4}u;
    let pixel_${i} = output_pixel(tile.first + left_row_${i}, end);
    var left_staged_${i} = vec4<Element>();
#end
#for i in 0..RIGHT_EACH
    let right_step_${i} = (lane + ${i * THREADS}u) / ${COLUMNS / 4}u;
    let right_quad_${i} = (lane + ${i * THREADS}u) % ${COLUMNS / 4}u;
    var right_staged_${i} = vec4<Element>();
#end
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    var sum_${i}_${j} = MatrixC();
#end
#end
    let at = corner(lane);
    for (var start = 0u; start < steps + ${DEPTH}u; start += ${DEPTH}u) {
        // The first round only fetches.
        if start > 0u {
#for i in 0..LEFT_EACH
            stage_left(left_row_${i} * ${BY_STEPS}u + left_step_${i}, left_staged_${i});
#end
#for i in 0..RIGHT_EACH
            stage_right(right_step_${i} * ${BY_COLUMNS}u + right_quad_${i}, right_staged_${i});
#end
        }
        workgroupBarrier();
        if start < steps {
#for i in 0..LEFT_EACH
            let left_at_${i} = start / 4u + left_step_${i};
            let tap_${i} = left_at_${i} / in_c4;
            let ky_${i} = tap_${i} / params.kernel_w;
            let kx_${i} = tap_${i} - ky_${i} * params.kernel_w;
            left_staged_${i} = x_at(pixel_${i}, ky_${i}, kx_${i}, left_at_${i} - tap_${i} * in_c4, left_at_${i} * 4u < steps);
#end
#for i in 0..RIGHT_EACH
            right_staged_${i} = vec4<Element>();
            if start + right_step_${i} < steps && tile.first_quad + right_quad_${i} < out_c4 {
                right_staged_${i} = weight[(start + right_step_${i}) * out_c4 + tile.first_quad + right_quad_${i}];
            }
#end
        }
        if start > 0u {
#for step in 0..DEPTH/16
#for j in 0..PATCH_COLUMNS
            let b_${step}_${j} = right_by_rows(${step * 16}u * ${BY_COLUMNS}u + (at.y + ${16 * j}u) / 4u, ${BY_COLUMNS}u, lane % ${SUBGROUP}u);
#end
#for i in 0..PATCH_ROWS
            let a_${step}_${i} = left_by_rows((at.x + ${16 * i}u) * ${BY_STEPS}u + ${step * 4}u, ${BY_STEPS}u, lane % ${SUBGROUP}u);
#for j in 0..PATCH_COLUMNS
            sum_${i}_${j} = multiply_add(a_${step}_${i}, b_${step}_${j}, sum_${i}_${j});
#end
#end
#end
        }
        workgroupBarrier();
    }

    let relu = vec4<bool>(params.relu != 0u);
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    store_patch(sum_${i}_${j}, lane / ${SUBGROUP}u * 64u, lane % ${SUBGROUP}u);
    workgroupBarrier();
    let row_${i}_${j} = tile.first + at.x + ${16 * i}u + lane % ${SUBGROUP}u / 2u;
    let quad_${i}_${j} = tile.first_quad + (at.y + ${16 * j}u) / 4u + lane % 2u * 2u;
#for half in 0..2
    if row_${i}_${j} < end && quad_${i}_${j} + ${half}u < out_c4 {
        let value = half_row(lane, ${half}u) + bias[quad_${i}_${j} + ${half}u];
        y[row_${i}_${j} * out_c4 + quad_${i}_${j} + ${half}u] = vec4<Element>(select(value, vec4<f32>(), relu & (value < vec4<f32>())));
    }
#end
    workgroupBarrier();
#end
#end
}

@compute @workgroup_size(${THREADS})
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let end = params.batch * params.in_h * params.in_w;
    let tile = tile_of(workgroup_index(wid, num), end, in_c4);
    if tile.split > 0u {
        return;
    }
    let steps = params.kernel_h * params.kernel_w * params.out_c;
    // Left by rows, right by columns: invocations next to each other read output channels next to each other.
#for i in 0..LEFT_EACH
    let left_row_${i} = (lane + ${i * THREADS}u) / ${DEPTH / 4}u;
    let left_step_${i} = (lane + ${i * THREADS}u) % ${DEPTH / 4}u;
    let pixel_${i} = input_pixel(tile.first + left_row_${i}, end);
    var left_staged_${i} = vec4<Element>();
#end
#for i in 0..RIGHT_EACH
    let right_column_${i} = (lane + ${i * THREADS}u) / ${DEPTH / 4}u;
    let right_step_${i} = (lane + ${i * THREADS}u) % ${DEPTH / 4}u;
    var right_staged_${i} = vec4<Element>();
#end
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    var sum_${i}_${j} = MatrixC();
#end
#end
    let at = corner(lane);
    for (var start = 0u; start < steps + ${DEPTH}u; start += ${DEPTH}u) {
        if start > 0u {
#for i in 0..LEFT_EACH
            stage_left(left_row_${i} * ${BY_STEPS}u + left_step_${i}, left_staged_${i});
#end
#for i in 0..RIGHT_EACH
            stage_right(right_column_${i} * ${BY_STEPS}u + right_step_${i}, right_staged_${i});
#end
        }
        workgroupBarrier();
        if start < steps {
#for i in 0..LEFT_EACH
            let left_at_${i} = start / 4u + left_step_${i};
            let tap_${i} = left_at_${i} / out_c4;
            let ky_${i} = tap_${i} / params.kernel_w;
            let kx_${i} = tap_${i} - ky_${i} * params.kernel_w;
            left_staged_${i} = dy_at(pixel_${i}, ky_${i}, kx_${i}, left_at_${i} - tap_${i} * out_c4, left_at_${i} * 4u < steps);
#end
#for i in 0..RIGHT_EACH
            let right_at_${i} = start / 4u + right_step_${i};
            let right_tap_${i} = right_at_${i} / out_c4;
            let channel_${i} = tile.first_quad * 4u + right_column_${i};
            right_staged_${i} = vec4<Element>();
            if right_at_${i} * 4u < steps && channel_${i} < params.in_c {
                right_staged_${i} = weight[(right_tap_${i} * params.in_c + channel_${i}) * out_c4 + right_at_${i} - right_tap_${i} * out_c4];
            }
#end
        }
        if start > 0u {
#for step in 0..DEPTH/16
#for j in 0..PATCH_COLUMNS
            let b_${step}_${j} = right_by_columns((at.y + ${16 * j}u) * ${BY_STEPS}u + ${step * 4}u, ${BY_STEPS}u, lane % ${SUBGROUP}u);
#end
#for i in 0..PATCH_ROWS
            let a_${step}_${i} = left_by_rows((at.x + ${16 * i}u) * ${BY_STEPS}u + ${step * 4}u, ${BY_STEPS}u, lane % ${SUBGROUP}u);
#for j in 0..PATCH_COLUMNS
            sum_${i}_${j} = multiply_add(a_${step}_${i}, b_${step}_${j}, sum_${i}_${j});
#end
#end
#end
        }
        workgroupBarrier();
    }

#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    store_patch(sum_${i}_${j}, lane / ${SUBGROUP}u * 64u, lane % ${SUBGROUP}u);
    workgroupBarrier();
    let row_${i}_${j} = tile.first + at.x + ${16 * i}u + lane % ${SUBGROUP}u / 2u;
    let quad_${i}_${j} = tile.first_quad + (at.y + ${16 * j}u) / 4u + lane % 2u * 2u;
#for half in 0..2
    if row_${i}_${j} < end && quad_${i}_${j} + ${half}u < in_c4 {
        let to = row_${i}_${j} * in_c4 + quad_${i}_${j} + ${half}u;
        dx[to] = vec4<Element>(masked(half_row(lane, ${half}u), to));
    }
#end
    workgroupBarrier();
#end
#end
}

// The workgroups of the first rows also sum dy: the bias gradient.
@compute @workgroup_size(${THREADS})
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let rows = params.kernel_h * params.kernel_w * params.in_c;
    let tile = tile_of(workgroup_index(wid, num), rows, out_c4);
    if tile.split >= params.splits {
        return;
    }
    let begin = tile.split * params.per_split;
    let end = min(begin + params.per_split, params.batch * params.out_h * params.out_w);
    // Left by columns, right by rows: invocations next to each other read channels next to each other.
#for i in 0..LEFT_EACH
    let left_step_${i} = (lane + ${i * THREADS}u) / ${ROWS / 4}u;
    let left_quad_${i} = (lane + ${i * THREADS}u) % ${ROWS / 4}u;
    let row_quad_${i} = tile.first / 4u + left_quad_${i};
    let tap_${i} = row_quad_${i} / in_c4;
    let ky_${i} = tap_${i} / params.kernel_w;
    let kx_${i} = tap_${i} - ky_${i} * params.kernel_w;
    var left_staged_${i} = vec4<Element>();
#end
#for i in 0..RIGHT_EACH
    let right_step_${i} = (lane + ${i * THREADS}u) / ${COLUMNS / 4}u;
    let right_quad_${i} = (lane + ${i * THREADS}u) % ${COLUMNS / 4}u;
    var right_staged_${i} = vec4<Element>();
#end
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    var sum_${i}_${j} = MatrixC();
#end
#end
    var dy_sum = vec4<f32>();
    let sums_dy = tile.first == 0u && lane < ${COLUMNS / 4}u;
    let at = corner(lane);
    for (var start = begin; start < end + ${DEPTH}u; start += ${DEPTH}u) {
        if start > begin {
#for i in 0..LEFT_EACH
            stage_left(left_step_${i} * ${BY_ROWS}u + left_quad_${i}, left_staged_${i});
#end
#for i in 0..RIGHT_EACH
            stage_right(right_step_${i} * ${BY_COLUMNS}u + right_quad_${i}, right_staged_${i});
#end
        }
        workgroupBarrier();
        if start < end {
#for i in 0..LEFT_EACH
            let pixel_${i} = output_pixel(start + left_step_${i}, end);
            left_staged_${i} = x_at(pixel_${i}, ky_${i}, kx_${i}, row_quad_${i} - tap_${i} * in_c4, row_quad_${i} * 4u < rows);
#end
#for i in 0..RIGHT_EACH
            right_staged_${i} = vec4<Element>();
            if start + right_step_${i} < end && tile.first_quad + right_quad_${i} < out_c4 {
                right_staged_${i} = dy[(start + right_step_${i}) * out_c4 + tile.first_quad + right_quad_${i}];
            }
#end
        }
        if start > begin {
#for step in 0..DEPTH/16
#for j in 0..PATCH_COLUMNS
            let b_${step}_${j} = right_by_rows(${step * 16}u * ${BY_COLUMNS}u + (at.y + ${16 * j}u) / 4u, ${BY_COLUMNS}u, lane % ${SUBGROUP}u);
#end
#for i in 0..PATCH_ROWS
            let a_${step}_${i} = left_by_columns(${step * 16}u * ${BY_ROWS}u + (at.x + ${16 * i}u) / 4u, ${BY_ROWS}u, lane % ${SUBGROUP}u);
#for j in 0..PATCH_COLUMNS
            sum_${i}_${j} = multiply_add(a_${step}_${i}, b_${step}_${j}, sum_${i}_${j});
#end
#end
#end
            if sums_dy {
                for (var step = 0u; step < ${DEPTH}u; step++) {
                    dy_sum += right_quad(step * ${BY_COLUMNS}u + lane);
                }
            }
        }
        workgroupBarrier();
    }

    let base = tile.split * (rows + 1u) * out_c4;
    if sums_dy && tile.first_quad + lane < out_c4 {
        partials[base + rows * out_c4 + tile.first_quad + lane] = dy_sum;
    }
#for i in 0..PATCH_ROWS
#for j in 0..PATCH_COLUMNS
    store_patch(sum_${i}_${j}, lane / ${SUBGROUP}u * 64u, lane % ${SUBGROUP}u);
    workgroupBarrier();
    let row_${i}_${j} = tile.first + at.x + ${16 * i}u + lane % ${SUBGROUP}u / 2u;
    let quad_${i}_${j} = tile.first_quad + (at.y + ${16 * j}u) / 4u + lane % 2u * 2u;
#for half in 0..2
    if row_${i}_${j} < rows && quad_${i}_${j} + ${half}u < out_c4 {
        partials[base + row_${i}_${j} * out_c4 + quad_${i}_${j} + ${half}u] = half_row(lane, ${half}u);
    }
#end
    workgroupBarrier();
#end
#end
}
