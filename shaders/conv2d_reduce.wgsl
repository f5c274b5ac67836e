// Second stage of every convolution's weight gradient: sums the partial results of `backward_weight` over the splits,
// in order, so that the same split count always gives the same bits.
//
// One invocation: one element. partials [splits, kernel_h * kernel_w * in_c + 1, out_c]; the rows but the last are
// dweight [kernel_h, kernel_w, in_c, out_c], the last is dbias [out_c].

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

@group(0) @binding(7) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(8) var<storage, read_write> dbias: array<f32>;
@group(0) @binding(9) var<storage, read> partials: array<f32>;

@compute @workgroup_size(64)
fn reduce_partials(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let weights = params.kernel_h * params.kernel_w * params.in_c * params.out_c;
    let elements = weights + params.out_c;
    let element = workgroup_index(wid, num) * 64u + lane;
    if element >= elements {
        return;
    }
    var sum = 0.0;
    for (var split = 0u; split < params.splits; split++) {
        sum += partials[split * elements + element];
    }
    if element < weights {
        dweight[element] = sum;
    } else {
        dbias[element - weights] = sum;
    }
}
