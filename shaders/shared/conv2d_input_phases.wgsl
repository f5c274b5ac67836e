// Part of a function body, for the input gradient of PIXELS consecutive input pixels from `first` on.
//
// Input row iy meets kernel row ky at output row (iy + pad - ky) / stride. With iy + pad = stride * row + row_phase
// and ky = stride * ky_steps + ky_phase that is row - ky_steps, and exact where the phases agree: so the loops below
// need no division. Columns likewise.
    let image_pixels = params.in_h * params.in_w;
    var n = first / image_pixels;
    var iy = first % image_pixels / params.in_w;
    var ix = first % params.in_w;
#for p in 0..PIXELS
    let image_${p} = i32(min(n, params.batch - 1u) * params.out_h);
    let row_${p} = i32((iy + params.pad_h) / params.stride_h);
    let row_phase_${p} = (iy + params.pad_h) % params.stride_h;
    let col_${p} = i32((ix + params.pad_w) / params.stride_w);
    let col_phase_${p} = (ix + params.pad_w) % params.stride_w;
    ix = select(ix + 1u, 0u, ix + 1u == params.in_w);
    iy = select(iy, iy + 1u, ix == 0u);
    n = select(n, n + 1u, iy == params.in_h);
    iy = select(iy, 0u, iy == params.in_h);
#end
