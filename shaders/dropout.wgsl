// Inverted dropout: y = x * scale where the element's random number is at least `probability`, else 0.
// One invocation computes the four elements that share a Philox block. x, y: [words].
//
// Elements are numbered over the whole batch, so micro-batches draw the masks that the batch would. The gradient is
// the same function of dy: the mask is drawn again.
#import "shared/grid.wgsl"
#import "shared/rng.wgsl"
#import "shared/step.wgsl"

struct Params {
    words: u32,
    words_per_image: u32,
    key: u32,            // of the layer
    probability: f32,    // of dropping an element
    scale: f32,          // 1 / (1 - probability)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<${ELEMENT}>;
@group(0) @binding(3) var<storage, read_write> y: array<${ELEMENT}>;

// Number of this micro-batch's first element in the batch.
fn first_element() -> u32 {
    return step.first_image * params.words_per_image;
}

fn random_words(block: u32) -> vec4<u32> {
    return philox(vec4<u32>(block, params.key, step.step, PURPOSE_DROPOUT), vec2<u32>(step.seed_lo, step.seed_hi));
}

fn drop(value: f32, random: u32) -> f32 {
    return select(0.0, value * params.scale, uniform01(random) >= params.probability);
}

#in_place x in y
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = first_element();
    let block = first / 4u + workgroup_index(workgroup, count) * 64u + lane;
    let random = random_words(block);
#for j in 0..4
    // Elements of the image before wrap around and fall out of range like those behind the end.
    let i_${j} = block * 4u + ${j}u - first;
    if i_${j} < params.words {
        y[i_${j}] = ${ELEMENT}(drop(f32(x[i_${j}]), random[${j}]));
    }
#end
}
#end
