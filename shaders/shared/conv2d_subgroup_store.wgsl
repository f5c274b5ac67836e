// Part of a function body: forward of the subgroup kernels stores a lane's results, with bias and ReLU, as conv2d_subgroup.wgsl says.
    let relu = vec4<bool>(params.relu != 0u);
    let results = select(0u, min(${PIXELS}u, (pixels - first + ${PIXEL_LANES - 1}u) / ${PIXEL_LANES}u) * ${QUADS}u, number == tile);
    for (var i = 0u; i < results; i++) {
        let pixel = first + i / ${QUADS}u * ${PIXEL_LANES}u + grid_row;
        let quad = first_quad + i % ${QUADS}u * ${CHANNEL_LANES}u + grid_column;
        if pixel < pixels && quad < out_c4 {
            let value = total_0_0 + bias[quad];
            y[pixel * out_c4 + quad] = vec4<${ELEMENT}>(select(value, vec4<f32>(), relu & (value < vec4<f32>())));
        }
#for r in 0..PIXELS*QUADS-1
        total_${r / QUADS}_${r % QUADS} = total_${(r + 1) / QUADS}_${(r + 1) % QUADS};
#end
    }
