// The forward convolution of conv2d_lanes_narrow.wgsl and conv2d_lanes_narrow_small.wgsl, which differ in the size of the
// tile: LANES, PIXELS, QUADS.

// One invocation: PIXELS consecutive output pixels by QUADS groups of 4 output channels.
@compute @workgroup_size(${LANES})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
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
    let start_${p} = col_${p} * i32(params.in_c);
#for q in 0..QUADS
    var sum_${p}_${q} = vec4<f32>();
#end
#end

    let positions = i32(params.in_w * params.in_c);
    let run = i32(params.kernel_w * params.in_c);
    var w_row = 0u;
    for (var ky = 0; ky < i32(params.kernel_h); ky++) {
#for p in 0..PIXELS
        let iy_${p} = row_${p} + ky;
        let row_inside_${p} = iy_${p} >= 0 && iy_${p} < i32(params.in_h);
        let line_${p} = (image_${p} + iy_${p}) * positions;
#end
        for (var j = 0; j < run; j++) {
#for q in 0..QUADS
            let w_${q} = weight[w_row + quad_${q}];
#end
            w_row += out_c4;
#for p in 0..PIXELS
            let position_${p} = start_${p} + j;
            let inside_${p} = row_inside_${p} && position_${p} >= 0 && position_${p} < positions;
            let x_${p} = select(0.0, x[select(0, line_${p} + position_${p}, inside_${p})], inside_${p});
#for q in 0..QUADS
            sum_${p}_${q} += x_${p} * w_${q};
#end
#end
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
