// The kernels of avg_pool2d.wgsl and avg_pool2d_scalar.wgsl, which differ in the channels of one element: Value, Stored in memory.
// `params.channels` counts elements.

@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read_write> y: array<Stored>;
@group(0) @binding(3) var<storage, read> dy: array<Stored>;
@group(0) @binding(4) var<storage, read_write> dx: array<Stored>;

// Along one axis, how much of the window at `start` (in the padded input) lies inside the padded input.
fn extent(start: u32, kernel: u32, input: u32, pad: u32) -> u32 {
    return min(start + kernel, input + 2u * pad) - start;
}

fn window_size(oy: u32, ox: u32) -> f32 {
    let height = extent(oy * params.stride_h, params.kernel_h, params.in_h, params.pad_h);
    let width = extent(ox * params.stride_w, params.kernel_w, params.in_w, params.pad_w);
    return f32(height * width);
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i >= params.elements {
        return;
    }
    let place = place_of(i, params.out_h, params.out_w);
    let top = i32(place.row * params.stride_h) - i32(params.pad_h);
    let left = i32(place.column * params.stride_w) - i32(params.pad_w);
    let bottom = min(top + i32(params.kernel_h), i32(params.in_h));
    let right = min(left + i32(params.kernel_w), i32(params.in_w));
    var sum = Value();
    for (var row = max(top, 0); row < bottom; row++) {
        let first = (place.image * params.in_h + u32(row)) * params.in_w;
        var row_sum = Value();
        for (var column = max(left, 0); column < right; column++) {
            row_sum += Value(x[(first + u32(column)) * params.channels + place.channel]);
        }
        sum += row_sum;
    }
    y[i] = Stored(sum / window_size(place.row, place.column));
}

fn gradient(i: u32) -> Value {
    let place = place_of(i, params.in_h, params.in_w);
    let oy_end = end_window(place.row, params.stride_h, params.pad_h, params.out_h);
    let ox_first = first_window(place.column, params.kernel_w, params.stride_w, params.pad_w);
    let ox_end = end_window(place.column, params.stride_w, params.pad_w, params.out_w);
    var sum = Value();
    for (var oy = first_window(place.row, params.kernel_h, params.stride_h, params.pad_h); oy < oy_end; oy++) {
        let first = (place.image * params.out_h + oy) * params.out_w;
        for (var ox = ox_first; ox < ox_end; ox++) {
            sum += Value(dy[(first + ox) * params.channels + place.channel]) / window_size(oy, ox);
        }
    }
    return sum;
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.elements {
        dx[i] = Stored(gradient(i));
    }
}

#in_place x in dx
// dx = 0 where x <= 0: the gradient of a ReLU before the pool, too.
@compute @workgroup_size(64)
fn backward_masked(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.elements {
        dx[i] = Stored(select(Value(), gradient(i), Value(x[i]) > Value()));
    }
}
#end
