// Part of a function body: forward of the lanes' kernels stores an invocation's results, with bias and ReLU, as conv2d_lanes.wgsl says.
    let relu = vec4<bool>(params.relu != 0u);
    let results = select(0u, min(${PIXELS}u, pixels - first) * ${QUADS}u, number == tile);
    for (var i = 0u; i < results; i++) {
        let at_quad = quad + i % ${QUADS}u;
        if at_quad < out_c4 {
            let value = total_0_0 + bias[at_quad];
            y[(first + i / ${QUADS}u) * out_c4 + at_quad] = vec4<${ELEMENT}>(select(value, vec4<f32>(), relu & (value < vec4<f32>())));
        }
#for r in 0..PIXELS*QUADS-1
        total_${r / QUADS}_${r % QUADS} = total_${(r + 1) / QUADS}_${(r + 1) % QUADS};
#end
    }
