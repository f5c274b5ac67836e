// How conv2d_gemm_*.wgsl read x where channels are a multiple of 4, and the input gradient, which only these have.

@group(0) @binding(1) var<storage, read> x: array<vec4<${ELEMENT}>>;
@group(0) @binding(6) var<storage, read_write> dx: array<vec4<${ELEMENT}>>;

alias Value = vec4<f32>;
#import "shared/conv2d_mask.wgsl"

// x that four output pixels meet at reduction steps step..step+3: one kernel
// position, four channels. Columns of the result are steps.
fn x_of_pixels(pixels: Pixels, step: u32, steps: u32) -> mat4x4<f32> {
    let in_c4 = params.in_c / 4u;
    var c4 = step / 4u;
    var ky = 0u;
    var kx = 0u;
    if !is_pointwise() {
        let tap = c4 / in_c4;
        c4 -= tap * in_c4;
        ky = tap / params.kernel_w;
        kx = tap - ky * params.kernel_w;
    }
    let iy = pixels.row + i32(ky);
    let ix = pixels.column + i32(kx);
    let inside = (iy >= vec4<i32>()) & (iy < vec4<i32>(i32(params.in_h))) & (ix >= vec4<i32>()) & (ix < vec4<i32>(i32(params.in_w)))
        & vec4<bool>(step < steps);
    let at = vec4<u32>((pixels.image + iy) * i32(params.in_w) + ix) * in_c4 + c4;
    var by_pixel = mat4x4<f32>();
#for p in 0..4
    if inside[${p}] {
        by_pixel[${p}] = vec4<f32>(x[at[${p}]]);
    }
#end
    return transpose(by_pixel);
}

// Four weight rows: one kernel position, one quad of channels.
struct Rows {
    ky: i32,
    kx: i32,
    c4: u32,
    inside: bool,
}

fn rows_from(first: u32, rows: u32) -> Rows {
    let in_c4 = params.in_c / 4u;
    let tap = first / 4u / in_c4;
    return Rows(i32(tap / params.kernel_w), i32(tap % params.kernel_w), first / 4u % in_c4, first < rows);
}

// x that four weight rows meet at four output pixels. Columns of the result are pixels.
fn x_of_rows(rows: Rows, pixels: Pixels) -> mat4x4<f32> {
    let iy = pixels.row + rows.ky;
    let ix = pixels.column + rows.kx;
    let inside = (iy >= vec4<i32>()) & (iy < vec4<i32>(i32(params.in_h))) & (ix >= vec4<i32>()) & (ix < vec4<i32>(i32(params.in_w)))
        & vec4<bool>(rows.inside);
    let at = vec4<u32>((pixels.image + iy) * i32(params.in_w) + ix) * (params.in_c / 4u) + rows.c4;
    var by_pixel = mat4x4<f32>();
#for p in 0..4
    if inside[${p}] {
        by_pixel[${p}] = vec4<f32>(x[at[${p}]]);
    }
#end
    return by_pixel;
}

// Input pixels, which look at the output: their coordinates in the padded input.
fn input_pixels(first: u32, end: u32) -> Pixels {
    var pixels: Pixels;
    let line = first / params.in_w;
    var n = line / params.in_h;
    var iy = line - n * params.in_h;
    var ix = first - line * params.in_w;
#for p in 0..4
    pixels.image[${p}] = i32(n * params.out_h);
    pixels.row[${p}] = select(NOWHERE, i32(iy + params.pad_h), first + ${p}u < end);
    pixels.column[${p}] = i32(ix + params.pad_w);
    ix = select(ix + 1u, 0u, ix + 1u == params.in_w);
    iy = select(iy, iy + 1u, ix == 0u);
    n = select(n, n + 1u, iy == params.in_h);
    iy = select(iy, 0u, iy == params.in_h);
#end
    return pixels;
}

// dy that four input pixels meet at four reduction steps: one kernel position, four output channels. Coordinates must be
// multiples of the stride. Columns of the result are steps.
fn dy_of_pixels(pixels: Pixels, ky: u32, kx: u32, o4: u32, within: bool) -> mat4x4<f32> {
    let top = pixels.row - i32(ky);
    let left_edge = pixels.column - i32(kx);
    var oy = top;
    var ox = left_edge;
    var exact = vec4<bool>(within);
    if params.stride_h * params.stride_w > 1u {
        oy = top / i32(params.stride_h);
        ox = left_edge / i32(params.stride_w);
        exact = exact & (oy * i32(params.stride_h) == top) & (ox * i32(params.stride_w) == left_edge);
    }
    let inside = exact & (top >= vec4<i32>()) & (oy < vec4<i32>(i32(params.out_h)))
        & (left_edge >= vec4<i32>()) & (ox < vec4<i32>(i32(params.out_w)));
    let at = vec4<u32>((pixels.image + oy) * i32(params.out_w) + ox) * (params.out_c / 4u) + o4;
    var by_pixel = mat4x4<f32>();
#for p in 0..4
    if inside[${p}] {
        by_pixel[${p}] = vec4<f32>(dy[at[${p}]]);
    }
#end
    return transpose(by_pixel);
}

// Products of dy and the filter, summed over steps `begin` to `steps` of the reduction.
fn sum_backward_input(lane: u32, tile: Tile, begin: u32, steps: u32, sums: ptr<function, Sums>) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let end = params.batch * params.in_h * params.in_w;
    // Both operands: invocations next to each other read output channels next to each other.
#for i in 0..UNITS_EACH
    let unit_${i} = lane + ${i * THREADS}u;
    let is_left_${i} = unit_${i} < ${LEFT_UNITS}u;
    let group_${i} = unit_${i} % ${DEPTH / 4}u;
    let quad_${i} = select(unit_${i} - ${LEFT_UNITS}u, unit_${i}, is_left_${i}) / ${DEPTH / 4}u;
    let pixels_${i} = input_pixels(tile.first + quad_${i} * 4u, select(0u, end, is_left_${i}));
    var staged_${i} = mat4x4<f32>();
#end

    let row = lane / ${THREAD_COLUMNS}u;
    let column = lane % ${THREAD_COLUMNS}u;
    for (var start = begin; start < steps + ${DEPTH}u; start += ${DEPTH}u) {
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
            let tap_${i} = step_${i} / params.out_c;
            let o4_${i} = step_${i} / 4u - tap_${i} * out_c4;
            if is_left_${i} {
                let ky = tap_${i} / params.kernel_w;
                staged_${i} = dy_of_pixels(pixels_${i}, ky, tap_${i} - ky * params.kernel_w, o4_${i}, step_${i} < steps);
            } else if unit_${i} < ${UNITS}u {
                var by_channel = mat4x4<f32>();
                if step_${i} < steps && tile.first_quad + quad_${i} < in_c4 {
                    let at = (tap_${i} * params.in_c + (tile.first_quad + quad_${i}) * 4u) * out_c4 + o4_${i};
#for c in 0..4
                    by_channel[${c}] = vec4<f32>(weight[at + ${c}u * out_c4]);
#end
                }
                staged_${i} = transpose(by_channel);
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
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let end = params.batch * params.in_h * params.in_w;
    let tile = tile_of(workgroup_index(wid, num), end, in_c4);
    if tile.split > 0u {
        return;
    }
    var sums = Sums();
    sum_backward_input(lane, tile, 0u, params.kernel_h * params.kernel_w * params.out_c, &sums);

    let row = lane / ${THREAD_COLUMNS}u;
    let column = lane % ${THREAD_COLUMNS}u;
#for j in 0..COLUMN_QUADS
    let quad_of_${j} = tile.first_quad + column + ${j * THREAD_COLUMNS}u;
    if quad_of_${j} < in_c4 {
#for i in 0..ROW_QUADS
#for r in 0..4
        let pixel_${i}_${r} = tile.first + (row + ${i * THREAD_ROWS}u) * 4u + ${r}u;
        if pixel_${i}_${r} < end {
            let at = pixel_${i}_${r} * in_c4 + quad_of_${j};
            dx[at] = vec4<${ELEMENT}>(masked(sums[${(4 * i + r) * COLUMN_QUADS + j}], at));
        }
#end
#end
    }
#end
}
