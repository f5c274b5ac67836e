// The forward convolution of conv2d_lanes.wgsl and conv2d_lanes_small.wgsl, which differ in the size of the tile: LANES,
// PIXELS, QUADS.

// One invocation: PIXELS consecutive output pixels by QUADS groups of 4 output channels.
@compute @workgroup_size(${LANES})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let out_c4 = params.out_c / 4u;
    let pixels = params.batch * params.out_h * params.out_w;
    let pixel_tiles = (pixels + ${PIXELS - 1}u) / ${PIXELS}u;
    let tile = workgroup_index(wid, num) * ${LANES}u + lane;
    let quad = tile / pixel_tiles * ${QUADS}u;
    let first = tile % pixel_tiles * ${PIXELS}u;
    if quad >= out_c4 {
        return;
    }
#for q in 0..QUADS
    let quad_${q} = min(quad + ${q}u, out_c4 - 1u);
#end

#import "shared/conv2d_window_corners.wgsl"
#for p in 0..PIXELS
#for q in 0..QUADS
    var sum_${p}_${q} = vec4<f32>();
#end
#end

    var w_row = 0u;
    for (var ky = 0; ky < i32(params.kernel_h); ky++) {
        for (var kx = 0; kx < i32(params.kernel_w); kx++) {
#for p in 0..PIXELS
            let iy_${p} = row_${p} + ky;
            let ix_${p} = col_${p} + kx;
            let inside_${p} = iy_${p} >= 0 && iy_${p} < i32(params.in_h) && ix_${p} >= 0 && ix_${p} < i32(params.in_w);
            let at_${p} = u32(select(0, (image_${p} + iy_${p}) * i32(params.in_w) + ix_${p}, inside_${p})) * in_c4;
#end
            for (var c = 0u; c < in_c4; c++) {
#for q in 0..QUADS
#for k in 0..4
                let w_${q}_${k} = weight[w_row + ${k}u * out_c4 + quad_${q}];
#end
#end
                w_row += 4u * out_c4;
#for p in 0..PIXELS
                let x_${p} = select(vec4<f32>(), x[at_${p} + c], inside_${p});
#for q in 0..QUADS
                sum_${p}_${q} += x_${p}.x * w_${q}_0;
                sum_${p}_${q} += x_${p}.y * w_${q}_1;
                sum_${p}_${q} += x_${p}.z * w_${q}_2;
                sum_${p}_${q} += x_${p}.w * w_${q}_3;
#end
#end
            }
        }
    }

    let relu = vec4<bool>(params.relu != 0u);
#for q in 0..QUADS
    let bias_${q} = bias[quad_${q}];
#for p in 0..PIXELS
    if first + ${p}u < pixels && quad + ${q}u < out_c4 {
        let value = sum_${p}_${q} + bias_${q};
        y[(first + ${p}u) * out_c4 + quad + ${q}u] = select(value, vec4<f32>(), relu & (value < vec4<f32>()));
    }
#end
#end
}
