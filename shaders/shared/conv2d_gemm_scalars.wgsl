// How conv2d_gemm_narrow.wgsl reads x, which has 1 to 3 channels: one number at a time.

@group(0) @binding(1) var<storage, read> x: array<${ELEMENT}>;

// x at kernel row ky, position j of that row's kernel_w * in_c numbers, for four output pixels.
fn x_at(pixels: Pixels, ky: u32, j: u32, within: bool) -> vec4<f32> {
    let positions = i32(params.in_w * params.in_c);
    let iy = pixels.row + i32(ky);
    let position = pixels.column * i32(params.in_c) + i32(j);
    let inside = (iy >= vec4<i32>()) & (iy < vec4<i32>(i32(params.in_h))) & (position >= vec4<i32>()) & (position < vec4<i32>(positions))
        & vec4<bool>(within);
    let at = vec4<u32>((pixels.image + iy) * positions + position);
    var values = vec4<f32>();
#for p in 0..4
    if inside[${p}] {
        values[${p}] = f32(x[at[${p}]]);
    }
#end
    return values;
}

// x that four output pixels meet at reduction steps step..step+3. Columns of the result are steps.
fn x_of_pixels(pixels: Pixels, step: u32, steps: u32) -> mat4x4<f32> {
    let run = params.kernel_w * params.in_c;
    var ky = step / run;
    var j = step - ky * run;
    var by_step = mat4x4<f32>();
#for k in 0..4
    by_step[${k}] = x_at(pixels, ky, j, step + ${k}u < steps);
    j = select(j + 1u, 0u, j + 1u == run);
    ky = select(ky, ky + 1u, j == 0u);
#end
    return by_step;
}

// Four weight rows.
struct Rows {
    ky: vec4<u32>,
    j: vec4<u32>,
    inside: vec4<bool>,
}

fn rows_from(first: u32, rows: u32) -> Rows {
    let run = params.kernel_w * params.in_c;
    let row = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    return Rows(row / run, row % run, row < vec4<u32>(rows));
}

// x that four weight rows meet at four output pixels. Columns of the result are pixels.
fn x_of_rows(rows: Rows, pixels: Pixels) -> mat4x4<f32> {
    var by_row = mat4x4<f32>();
#for r in 0..4
    by_row[${r}] = x_at(pixels, rows.ky[${r}], rows.j[${r}], rows.inside[${r}]);
#end
    return transpose(by_row);
}
