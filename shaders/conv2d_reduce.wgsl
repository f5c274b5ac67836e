// Second stage of convolutions whose reduction is split: sums the partial results in an order of its own, so that the same
// split count always gives the same bits.
//
//   reduce_partials  partials [splits, kernel_h * kernel_w * in_c + 1, out_c]: the rows but the last are dweight
//                    [kernel_h, kernel_w, in_c, out_c], the last is dbias [out_c]
//   reduce_forward   partials [splits, batch * out_h * out_w, out_c] to y
//   reduce_input     partials [splits, batch * in_h * in_w, in_c] to dx
//
// One invocation of these: one element, its partial results in order. With `_spread` behind the name a workgroup has 32
// elements with LANES lanes each: for many splits, which one lane would wait for one after the other. Neighbouring
// invocations load neighbouring elements either way.

#define LANES 8
#define ELEMENTS 32

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

@group(0) @binding(1) var<storage, read> x: array<${ELEMENT}>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<${ELEMENT}>;
@group(0) @binding(6) var<storage, read_write> dx: array<${ELEMENT}>;
@group(0) @binding(7) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(8) var<storage, read_write> dbias: array<f32>;
@group(0) @binding(9) var<storage, read> partials: array<f32>;

alias Value = f32;
#import "shared/conv2d_mask.wgsl"

fn sum_of_splits(element: u32, elements: u32) -> f32 {
    var sum = 0.0;
    for (var split = 0u; split < params.splits; split++) {
        sum += partials[split * elements + element];
    }
    return sum;
}

var<workgroup> lane_sums: array<f32, ${LANES * ELEMENTS}>;

// The element of an invocation, and which of the element's lanes it is.
struct Share {
    element: u32,
    lane: u32,
}

fn share_of(workgroup: u32, local: u32) -> Share {
    return Share(workgroup * ${ELEMENTS}u + local % ${ELEMENTS}u, local / ${ELEMENTS}u);
}

// The sum over all splits, in the first lane of an element: each lane sums every LANES-th, then those sums are added in
// order. All invocations of the workgroup have to call it.
fn sum_over_lanes(share: Share, elements: u32) -> f32 {
    var sum = 0.0;
    if share.element < elements {
        for (var split = share.lane; split < params.splits; split += ${LANES}u) {
            sum += partials[split * elements + share.element];
        }
    }
    let column = share.element % ${ELEMENTS}u;
    lane_sums[share.lane * ${ELEMENTS}u + column] = sum;
    workgroupBarrier();
    if share.lane == 0u {
        for (var lane = 1u; lane < ${LANES}u; lane++) {
            sum += lane_sums[lane * ${ELEMENTS}u + column];
        }
    }
    return sum;
}

fn weight_elements() -> u32 {
    return (params.kernel_h * params.kernel_w * params.in_c + 1u) * params.out_c;
}

fn forward_elements() -> u32 {
    return params.batch * params.out_h * params.out_w * params.out_c;
}

fn input_elements() -> u32 {
    return params.batch * params.in_h * params.in_w * params.in_c;
}

fn store_gradient(element: u32, elements: u32, sum: f32) {
    let weights = elements - params.out_c;
    if element < weights {
        dweight[element] = sum;
    } else {
        dbias[element - weights] = sum;
    }
}

fn store_forward(element: u32, sum: f32) {
    let value = sum + bias[element % params.out_c];
    y[element] = ${ELEMENT}(select(value, 0.0, params.relu != 0u && value < 0.0));
}

fn store_input(element: u32, sum: f32) {
    dx[element] = ${ELEMENT}(masked(sum, element));
}

@compute @workgroup_size(64)
fn reduce_partials(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let elements = weight_elements();
    let element = workgroup_index(wid, num) * 64u + local;
    if element < elements {
        store_gradient(element, elements, sum_of_splits(element, elements));
    }
}

@compute @workgroup_size(64)
fn reduce_forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let elements = forward_elements();
    let element = workgroup_index(wid, num) * 64u + local;
    if element < elements {
        store_forward(element, sum_of_splits(element, elements));
    }
}

@compute @workgroup_size(64)
fn reduce_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let elements = input_elements();
    let element = workgroup_index(wid, num) * 64u + local;
    if element < elements {
        store_input(element, sum_of_splits(element, elements));
    }
}

@compute @workgroup_size(${LANES * ELEMENTS})
fn reduce_partials_spread(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let elements = weight_elements();
    let share = share_of(workgroup_index(wid, num), local);
    let sum = sum_over_lanes(share, elements);
    if share.lane == 0u && share.element < elements {
        store_gradient(share.element, elements, sum);
    }
}

@compute @workgroup_size(${LANES * ELEMENTS})
fn reduce_forward_spread(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let elements = forward_elements();
    let share = share_of(workgroup_index(wid, num), local);
    let sum = sum_over_lanes(share, elements);
    if share.lane == 0u && share.element < elements {
        store_forward(share.element, sum);
    }
}

@compute @workgroup_size(${LANES * ELEMENTS})
fn reduce_input_spread(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let elements = input_elements();
    let share = share_of(workgroup_index(wid, num), local);
    let sum = sum_over_lanes(share, elements);
    if share.lane == 0u && share.element < elements {
        store_input(share.element, sum);
    }
}
