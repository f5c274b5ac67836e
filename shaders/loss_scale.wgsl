// Dynamic loss scaling, around the update of the parameters: see shared/loss_scale.wgsl.
//   find_overflow  sets `overflow` where a gradient is infinite or not a number, by its bits: compilers may assume that
//                  floats are finite. One invocation looks at WORDS_EACH gradients, [words].
//   update         behind the optimizer: on overflow counts the step as skipped and halves the scale; after
//                  growth_interval updates in a row doubles it. One invocation.
#import "shared/grid.wgsl"
#import "shared/loss_scale.wgsl"

#define WORDS_EACH 8
#define THREADS 64

struct Params {
    words: u32,
    growth_interval: u32,
    largest_scale: f32,
    one_minus_beta1: f32,    // of Adam; 0 for rules without bias correction
    one_minus_beta2: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradients: array<u32>;
@group(0) @binding(2) var<storage, read_write> words: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> loss_scale: LossScale;

@compute @workgroup_size(${THREADS})
fn find_overflow(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = workgroup_index(workgroup, count) * ${THREADS * WORDS_EACH}u + lane;
    var found = false;
#for k in 0..WORDS_EACH
    let i_${k} = first + ${THREADS * k}u;
    if i_${k} < params.words {
        found |= (gradients[i_${k}] & 0x7f800000u) == 0x7f800000u;
    }
#end
    if found {
        atomicStore(&words[OVERFLOW_WORD], 1u);
    }
}

@compute @workgroup_size(1)
fn update() {
    if loss_scale.overflow != 0u {
        // Not below 1, where it would lose what half precision can hold.
        let shrinks = loss_scale.scale > 1.0;
        loss_scale.scale = select(loss_scale.scale, loss_scale.scale * 0.5, shrinks);
        loss_scale.inverse = select(loss_scale.inverse, loss_scale.inverse * 2.0, shrinks);
        loss_scale.good_steps = 0u;
        loss_scale.skipped_steps += 1u;
        loss_scale.overflow = 0u;
        return;
    }
    loss_scale.bias_correction1 += params.one_minus_beta1 * (1.0 - loss_scale.bias_correction1);
    loss_scale.bias_correction2 += params.one_minus_beta2 * (1.0 - loss_scale.bias_correction2);
    loss_scale.good_steps += 1u;
    if loss_scale.good_steps >= params.growth_interval {
        let grows = loss_scale.scale < params.largest_scale;
        loss_scale.scale = select(loss_scale.scale, loss_scale.scale * 2.0, grows);
        loss_scale.inverse = select(loss_scale.inverse, loss_scale.inverse * 0.5, grows);
        loss_scale.good_steps = 0u;
    }
}
