// The kernels of max_pool2d.wgsl and max_pool2d_scalar.wgsl, which differ in the channels of one element: Value, and the
// Offset and Mask that go with it; in memory a Value is Stored, and an Offset Packed. `params.channels` counts elements.

@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read_write> y: array<Stored>;
@group(0) @binding(3) var<storage, read_write> winner: array<Packed>;
@group(0) @binding(4) var<storage, read> dy: array<Stored>;
@group(0) @binding(5) var<storage, read> winner_in: array<Packed>;
@group(0) @binding(6) var<storage, read_write> dx: array<Stored>;
@group(0) @binding(7) var<storage, read> y_in: array<Stored>;

struct Winner {
    value: Value,
    offset: Offset,
}

fn window_maximum(i: u32) -> Winner {
    let place = place_of(i, params.out_h, params.out_w);
    let top = i32(place.row * params.stride_h) - i32(params.pad_h);
    let left = i32(place.column * params.stride_w) - i32(params.pad_w);
    let ky_end = min(i32(params.kernel_h), i32(params.in_h) - top);
    let kx_end = min(i32(params.kernel_w), i32(params.in_w) - left);
    let image_row = i32(place.image * params.in_h) + top;
    // Not one variable of a struct: naga gives structs a layout, which a function's own memory may not have in SPIR-V.
    var best = Value();
    var best_offset = Offset();
    var found = Mask(false);
    for (var ky = max(0, -top); ky < ky_end; ky++) {
        let row = (image_row + ky) * i32(params.in_w) + left;
        for (var kx = max(0, -left); kx < kx_end; kx++) {
            let value = Value(x[u32(row + kx) * params.channels + place.channel]);
            // A value that is not a number stays, as in PyTorch: it must not go unnoticed.
            let is_nan = (bitcast<Offset>(value) & Offset(0x7fffffffu)) > Offset(0x7f800000u);
            let wins = !found | (value > best) | is_nan;
            best = select(best, value, wins);
            best_offset = select(best_offset, Offset(u32(ky) * params.kernel_w + u32(kx)), wins);
            found = Mask(true);
        }
    }
    return Winner(best, best_offset);
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.elements {
        let best = window_maximum(i);
        y[i] = Stored(best.value);
        winner[i] = packed(best.offset);
    }
}

@compute @workgroup_size(64)
fn forward_no_indices(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.elements {
        y[i] = Stored(window_maximum(i).value);
    }
}

fn routed_0(at: u32) -> Value {
    return Value(dy[at]);
}

// A window's winner is its maximum: where y is not positive, neither is the winner, whose gradient a ReLU before the pool
// stops.
fn routed_1(at: u32) -> Value {
    return select(Value(), Value(dy[at]), Value(y_in[at]) > Value());
}

#for masked in 0..2
fn gradient_${masked}(i: u32) -> Value {
    let place = place_of(i, params.in_h, params.in_w);
    let oy_end = end_window(place.row, params.stride_h, params.pad_h, params.out_h);
    let ox_first = first_window(place.column, params.kernel_w, params.stride_w, params.pad_w);
    let ox_end = end_window(place.column, params.stride_w, params.pad_w, params.out_w);
    var sum = Value();
    for (var oy = first_window(place.row, params.kernel_h, params.stride_h, params.pad_h); oy < oy_end; oy++) {
        let ky = place.row + params.pad_h - oy * params.stride_h;
        for (var ox = ox_first; ox < ox_end; ox++) {
            let kx = place.column + params.pad_w - ox * params.stride_w;
            let at = ((place.image * params.out_h + oy) * params.out_w + ox) * params.channels + place.channel;
            sum += select(Value(), routed_${masked}(at), offset_of(winner_in[at]) == Offset(ky * params.kernel_w + kx));
        }
    }
    return sum;
}
#end

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.elements {
        dx[i] = Stored(gradient_0(i));
    }
}

// The gradient of a ReLU before the pool, too.
@compute @workgroup_size(64)
fn backward_masked(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(workgroup, count) * 64u + lane;
    if i < params.elements {
        dx[i] = Stored(gradient_1(i));
    }
}
