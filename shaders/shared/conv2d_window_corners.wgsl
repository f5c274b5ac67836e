// Part of a function body. For each of PIXELS consecutive output pixels from `first` on, the corner of its window in the
// input: row_p and col_p, which padding makes negative, and image_p, the number of rows before its image.
    let image_pixels = params.out_h * params.out_w;
    var n = first / image_pixels;
    var oy = first % image_pixels / params.out_w;
    var ox = first % params.out_w;
#for p in 0..PIXELS
    let image_${p} = i32(min(n, params.batch - 1u) * params.in_h);
    let row_${p} = i32(oy * params.stride_h) - i32(params.pad_h);
    let col_${p} = i32(ox * params.stride_w) - i32(params.pad_w);
    ox = select(ox + 1u, 0u, ox + 1u == params.out_w);
    oy = select(oy, oy + 1u, ox == 0u);
    n = select(n, n + 1u, oy == params.out_h);
    oy = select(oy, 0u, oy == params.out_h);
#end
