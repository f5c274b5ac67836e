// Part of a function body: forward of the subgroup kernels stores a lane's results, with bias and ReLU, as conv2d_subgroup.wgsl says.
    let relu = vec4<bool>(params.relu != 0u);
    let rounds = select(0u, min(${PIXELS}u, (pixels - first + ${PIXEL_LANES - 1}u) / ${PIXEL_LANES}u), number == tile);
    for (var p = 0u; p < rounds; p++) {
        let pixel = first + p * ${PIXEL_LANES}u + grid_row;
#for q in 0..QUADS
        let quad_${q} = first_quad + ${q * CHANNEL_LANES}u + grid_column;
        if pixel < pixels && quad_${q} < out_c4 {
            let value = total_0_${q} + bias[quad_${q}];
            y[pixel * out_c4 + quad_${q}] = vec4<${ELEMENT}>(select(value, vec4<f32>(), relu & (value < vec4<f32>())));
        }
#end
#for r in 0..PIXELS*QUADS-QUADS
        total_${r / QUADS}_${r % QUADS} = total_${r / QUADS + 1}_${r % QUADS};
#end
    }
