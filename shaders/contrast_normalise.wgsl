// Global contrast normalisation: y = (x - mean) * scale / |x - mean|, over all values of an image (pylearn2's
// global_contrast_normalize). An image of one colour becomes 0: its norm is rounding.
// One workgroup computes one image: every lane adds every THREADS-th value, then the lanes are added in a tree. The order of
// every sum is fixed.
// x: [images][values], an image of at most 4 channels in the order of memory; y: [images][values_in_memory].
#import "shared/grid.wgsl"

#define THREADS 64

struct Params {
    images: u32,
    values: u32,            // of an image
    values_in_memory: u32,  // of an image of y
    scale: f32,
    least_norm: f32,        // of an image that has contrast
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, ${THREADS}>;

// The sum over all lanes of what each brings, for every lane.
fn add_lanes(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    sums[lane] = value;
    for (var half = ${THREADS / 2}u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            sums[lane] += sums[lane + half];
        }
    }
    workgroupBarrier();
    return sums[0];
}

@compute @workgroup_size(${THREADS})
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_index(workgroup, count);
    // Barriers are for whole workgroups: those behind the last image compute it again, and write nothing.
    let image = min(number, params.images - 1u);
    let first = image * params.values;
    var sum = 0.0;
    for (var i = lane; i < params.values; i += ${THREADS}u) {
        sum += x[first + i];
    }
    let about = add_lanes(lane, sum) / f32(params.values);
    // The mean's own rounding, which images of little contrast would show.
    var rest = 0.0;
    for (var i = lane; i < params.values; i += ${THREADS}u) {
        rest += x[first + i] - about;
    }
    let correction = add_lanes(lane, rest) / f32(params.values);
    var squares = 0.0;
    for (var i = lane; i < params.values; i += ${THREADS}u) {
        let distance = (x[first + i] - about) - correction;
        squares += distance * distance;
    }
    let norm = sqrt(add_lanes(lane, squares));
    let factor = select(0.0, params.scale / norm, norm >= params.least_norm);
    if number < params.images {
        for (var i = lane; i < params.values_in_memory; i += ${THREADS}u) {
            let place = image * params.values_in_memory + i;
            if i < params.values {
                y[place] = ((x[first + i] - about) - correction) * factor;
            } else {
                y[place] = 0.0;
            }
        }
    }
}
