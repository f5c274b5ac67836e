// The kernels of conv2d_gemm_*.wgsl, which differ in the size of a tile and in how they read x.
//
// A workgroup of THREAD_ROWS x THREAD_COLUMNS invocations computes a tile of LEFT_QUADS x RIGHT_QUADS quads of results.
// DEPTH steps of the reduction of both operands are staged in workgroup memory at a time; what comes next is fetched
// into registers while they are multiplied. A unit of staging is 4 steps of one quad, a 4 x 4 matrix whose columns are
// the steps: UNITS of them, shared out among the invocations. Positions outside a map, and steps behind the last, are 0.
//
// An invocation's quads of rows are THREAD_ROWS apart, its quads of columns THREAD_COLUMNS: neighbours read neighbours.
#define DEPTH 16
#define BUFFERS 1
#import "shared/conv2d_gemm_tile.wgsl"

@group(0) @binding(2) var<storage, read> weight: array<vec4<${ELEMENT}>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<${ELEMENT}>>;
@group(0) @binding(5) var<storage, read> dy: array<vec4<${ELEMENT}>>;
@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

// Four consecutive pixels of a map: rows of the other map before their image, and the coordinates that kernel position
// (0, 0) meets there, times the stride in the input gradient. Pixels from `end` on are above every image.
struct Pixels {
    image: vec4<i32>,
    row: vec4<i32>,
    column: vec4<i32>,
}

const NOWHERE: i32 = -0x40000000;

// Output pixels, which look at the input.
fn output_pixels(first: u32, end: u32) -> Pixels {
    var pixels: Pixels;
    let line = first / params.out_w;
    var n = line / params.out_h;
    var oy = line - n * params.out_h;
    var ox = first - line * params.out_w;
#for p in 0..4
    pixels.image[${p}] = i32(n * params.in_h);
    pixels.row[${p}] = select(NOWHERE, i32(oy * params.stride_h) - i32(params.pad_h), first + ${p}u < end);
    pixels.column[${p}] = i32(ox * params.stride_w) - i32(params.pad_w);
    ox = select(ox + 1u, 0u, ox + 1u == params.out_w);
    oy = select(oy, oy + 1u, ox == 0u);
    n = select(n, n + 1u, oy == params.out_h);
    oy = select(oy, 0u, oy == params.out_h);
#end
    return pixels;
}

// A tile of a matrix: its first row, its first quad of columns, and which part of the reduction it sums.
struct Tile {
    first: u32,
    first_quad: u32,
    split: u32,
}

// Tile number `index` of `rows` by 4 * `quads` results: rows vary fastest, splits slowest.
fn tile_of(index: u32, rows: u32, quads: u32) -> Tile {
    let row_tiles = (rows + ${4 * LEFT_QUADS - 1}u) / ${4 * LEFT_QUADS}u;
    let tiles = row_tiles * ((quads + ${RIGHT_QUADS - 1}u) / ${RIGHT_QUADS}u);
    let within = index % tiles;
    return Tile(within % row_tiles * ${4 * LEFT_QUADS}u, within / row_tiles * ${RIGHT_QUADS}u, index / tiles);
}

fn is_pointwise() -> bool {
    return params.kernel_h * params.kernel_w * params.stride_h * params.stride_w == 1u && params.pad_h + params.pad_w == 0u;
}

// Products of x and the filter, summed over steps `begin` to `steps` of the reduction.
fn sum_forward(lane: u32, tile: Tile, begin: u32, steps: u32, sums: ptr<function, Sums>) {
    let out_c4 = params.out_c / 4u;
    let end = params.batch * params.out_h * params.out_w;
    // Left: x, invocations next to each other read channels next to each other; right: rows of the filter.
#for i in 0..UNITS_EACH
    let unit_${i} = lane + ${i * THREADS}u;
    let is_left_${i} = unit_${i} < ${LEFT_UNITS}u;
    let right_unit_${i} = unit_${i} - ${LEFT_UNITS}u;
    let group_${i} = select(right_unit_${i} / ${RIGHT_QUADS}u, unit_${i} % ${DEPTH / 4}u, is_left_${i});
    let quad_${i} = select(right_unit_${i} % ${RIGHT_QUADS}u, unit_${i} / ${DEPTH / 4}u, is_left_${i});
    let pixels_${i} = output_pixels(tile.first + quad_${i} * 4u, select(0u, end, is_left_${i}));
    var staged_${i} = mat4x4<f32>();
#end

    let row = lane / ${THREAD_COLUMNS}u;
    let column = lane % ${THREAD_COLUMNS}u;
    for (var start = begin; start < steps + ${DEPTH}u; start += ${DEPTH}u) {
        // The first round only fetches.
#for i in 0..UNITS_EACH
        if start > begin && is_left_${i} {
            stage_left(group_${i}, quad_${i}, staged_${i});
        } else if start > begin && unit_${i} < ${UNITS}u {
            stage_right(group_${i}, quad_${i}, staged_${i});
        }
#end
        workgroupBarrier();
        if start < steps {
#for i in 0..UNITS_EACH
            let step_${i} = start + group_${i} * 4u;
            if is_left_${i} {
                staged_${i} = x_of_pixels(pixels_${i}, step_${i}, steps);
            } else if unit_${i} < ${UNITS}u {
                staged_${i} = mat4x4<f32>();
#for k in 0..4
                if step_${i} + ${k}u < steps && tile.first_quad + quad_${i} < out_c4 {
                    staged_${i}[${k}] = vec4<f32>(weight[(step_${i} + ${k}u) * out_c4 + tile.first_quad + quad_${i}]);
                }
#end
            }
#end
        }
        if start > begin {
            multiply(0u, row, column, sums);
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(${THREADS})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let out_c4 = params.out_c / 4u;
    let end = params.batch * params.out_h * params.out_w;
    let tile = tile_of(workgroup_index(wid, num), end, out_c4);
    if tile.split > 0u {
        return;
    }
    var sums = Sums();
    sum_forward(lane, tile, 0u, params.kernel_h * params.kernel_w * params.in_c, &sums);

    let row = lane / ${THREAD_COLUMNS}u;
    let column = lane % ${THREAD_COLUMNS}u;
    let relu = vec4<bool>(params.relu != 0u);
#for j in 0..COLUMN_QUADS
    let quad_of_${j} = tile.first_quad + column + ${j * THREAD_COLUMNS}u;
    if quad_of_${j} < out_c4 {
        let bias_${j} = bias[quad_of_${j}];
#for i in 0..ROW_QUADS
#for r in 0..4
        let pixel_${i}_${r} = tile.first + (row + ${i * THREAD_ROWS}u) * 4u + ${r}u;
        if pixel_${i}_${r} < end {
            let value = sums[${(4 * i + r) * COLUMN_QUADS + j}] + bias_${j};
            y[pixel_${i}_${r} * out_c4 + quad_of_${j}] = vec4<${ELEMENT}>(select(value, vec4<f32>(), relu & (value < vec4<f32>())));
        }
#end
#end
    }
#end
}

// The workgroups of the first rows also sum dy: the bias gradient.
@compute @workgroup_size(${THREADS})
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let out_c4 = params.out_c / 4u;
    let rows = params.kernel_h * params.kernel_w * params.in_c;
    let tile = tile_of(workgroup_index(wid, num), rows, out_c4);
    if tile.split >= params.splits {
        return;
    }
    let begin = tile.split * params.per_split;
    let end = min(begin + params.per_split, params.batch * params.out_h * params.out_w);
    // Both operands: invocations next to each other read channels next to each other.
#for i in 0..UNITS_EACH
    let unit_${i} = lane + ${i * THREADS}u;
    let is_left_${i} = unit_${i} < ${LEFT_UNITS}u;
    let right_unit_${i} = unit_${i} - ${LEFT_UNITS}u;
    let group_${i} = select(right_unit_${i} / ${RIGHT_QUADS}u, unit_${i} / ${LEFT_QUADS}u, is_left_${i});
    let quad_${i} = select(right_unit_${i} % ${RIGHT_QUADS}u, unit_${i} % ${LEFT_QUADS}u, is_left_${i});
    let rows_${i} = rows_from(tile.first + quad_${i} * 4u, rows);
    var staged_${i} = mat4x4<f32>();
#end

    var sums = Sums();
#for j in 0..COLUMN_QUADS
    var dy_sum_${j} = vec4<f32>();
#end
    let row = lane / ${THREAD_COLUMNS}u;
    let column = lane % ${THREAD_COLUMNS}u;
    let sums_dy = tile.first == 0u && row == 0u;
    for (var start = begin; start < end + ${DEPTH}u; start += ${DEPTH}u) {
#for i in 0..UNITS_EACH
        if start > begin && is_left_${i} {
            stage_left(group_${i}, quad_${i}, staged_${i});
        } else if start > begin && unit_${i} < ${UNITS}u {
            stage_right(group_${i}, quad_${i}, staged_${i});
        }
#end
        workgroupBarrier();
        if start < end {
#for i in 0..UNITS_EACH
            let pixel_${i} = start + group_${i} * 4u;
            if is_left_${i} {
                staged_${i} = x_of_rows(rows_${i}, output_pixels(pixel_${i}, end));
            } else if unit_${i} < ${UNITS}u {
                staged_${i} = mat4x4<f32>();
#for k in 0..4
                if pixel_${i} + ${k}u < end && tile.first_quad + quad_${i} < out_c4 {
                    staged_${i}[${k}] = vec4<f32>(dy[(pixel_${i} + ${k}u) * out_c4 + tile.first_quad + quad_${i}]);
                }
#end
            }
#end
        }
        if start > begin {
            multiply(0u, row, column, &sums);
            if sums_dy {
                for (var step = 0u; step < ${DEPTH}u; step++) {
#for j in 0..COLUMN_QUADS
                    dy_sum_${j} += right[step * ${RIGHT_QUADS}u + ((column + ${j * THREAD_COLUMNS}u) ^ (step / 4u * 2u))];
#end
                }
            }
        }
        workgroupBarrier();
    }

    let base = tile.split * (rows + 1u) * out_c4;
#for j in 0..COLUMN_QUADS
    let quad_of_${j} = tile.first_quad + column + ${j * THREAD_COLUMNS}u;
    if quad_of_${j} < out_c4 {
        if sums_dy {
            partials[base + rows * out_c4 + quad_of_${j}] = dy_sum_${j};
        }
#for i in 0..ROW_QUADS
#for r in 0..4
        let row_${i}_${r} = tile.first + (row + ${i * THREAD_ROWS}u) * 4u + ${r}u;
        if row_${i}_${r} < rows {
            partials[base + row_${i}_${r} * out_c4 + quad_of_${j}] = sums[${(4 * i + r) * COLUMN_QUADS + j}];
        }
#end
#end
    }
#end
}
