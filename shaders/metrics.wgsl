// Sums over the rows of a micro-batch, kept on the device until the host asks:
// metrics[step.metrics_slot] = (sum of losses, top-1 hits, top-5 hits, images).
// One workgroup: every invocation adds each 64th row, then the first adds the 64 sums, always in the same order.
// rows: [images] of (loss, rank of the label, predicted class, not 0 if valid), metrics: [ring].
#import "shared/step.wgsl"

struct Params {
    images: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> rows: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> metrics: array<vec4<f32>>;

var<workgroup> sums: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) lane: u32) {
    var sum = vec4<f32>();
    for (var i = lane; i < params.images; i += 64u) {
        let row = rows[i];
        let valid = select(0.0, 1.0, row.w != 0.0);
        let hit_1 = select(0.0, valid, row.y < 1.0);
        let hit_5 = select(0.0, valid, row.y < 5.0);
        sum += vec4<f32>(row.x, hit_1, hit_5, valid);
    }
    sums[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        for (var i = 1u; i < 64u; i++) {
            sum += sums[i];
        }
        metrics[step.metrics_slot] = sum;
    }
}
