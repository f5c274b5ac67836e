// Second stage of convolutions whose reduction is split: sums the partial results in order, so that the same split count
// always gives the same bits. One invocation: one element.
//
//   reduce_partials  partials [splits, kernel_h * kernel_w * in_c + 1, out_c]: the rows but the last are dweight
//                    [kernel_h, kernel_w, in_c, out_c], the last is dbias [out_c]
//   reduce_forward   partials [splits, batch * out_h * out_w, out_c] to y
//   reduce_input     partials [splits, batch * in_h * in_w, in_c] to dx

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;
@group(0) @binding(7) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(8) var<storage, read_write> dbias: array<f32>;
@group(0) @binding(9) var<storage, read> partials: array<f32>;

alias Element = f32;
#import "shared/conv2d_mask.wgsl"

fn sum_of_splits(element: u32, elements: u32) -> f32 {
    var sum = 0.0;
    for (var split = 0u; split < params.splits; split++) {
        sum += partials[split * elements + element];
    }
    return sum;
}

@compute @workgroup_size(64)
fn reduce_partials(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let weights = params.kernel_h * params.kernel_w * params.in_c * params.out_c;
    let elements = weights + params.out_c;
    let element = workgroup_index(wid, num) * 64u + lane;
    if element >= elements {
        return;
    }
    let sum = sum_of_splits(element, elements);
    if element < weights {
        dweight[element] = sum;
    } else {
        dbias[element - weights] = sum;
    }
}

@compute @workgroup_size(64)
fn reduce_forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let elements = params.batch * params.out_h * params.out_w * params.out_c;
    let element = workgroup_index(wid, num) * 64u + lane;
    if element < elements {
        let value = sum_of_splits(element, elements) + bias[element % params.out_c];
        y[element] = select(value, 0.0, params.relu != 0u && value < 0.0);
    }
}

@compute @workgroup_size(64)
fn reduce_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let elements = params.batch * params.in_h * params.in_w * params.in_c;
    let element = workgroup_index(wid, num) * 64u + lane;
    if element < elements {
        dx[element] = masked(sum_of_splits(element, elements), element);
    }
}
