// Part of a function body: forward of the lanes' kernels stores an invocation's results, with bias and ReLU, as conv2d_lanes.wgsl says.
    let relu = vec4<bool>(params.relu != 0u);
    let rounds = select(0u, min(${PIXELS}u, pixels - first), number == tile);
    for (var p = 0u; p < rounds; p++) {
#for q in 0..QUADS
        if quad + ${q}u < out_c4 {
            let value = total_0_${q} + bias[quad + ${q}u];
            y[(first + p) * out_c4 + quad + ${q}u] = vec4<${ELEMENT}>(select(value, vec4<f32>(), relu & (value < vec4<f32>())));
        }
#end
#for r in 0..PIXELS*QUADS-QUADS
        total_${r / QUADS}_${r % QUADS} = total_${r / QUADS + 1}_${r % QUADS};
#end
    }
