// Rows of logits, and the sums that softmax and cross entropy share. The including shader declares `params` with
// `classes` and `channels` (classes in memory).
@group(0) @binding(2) var<storage, read> logits: array<f32>;

// Largest logit of a row; subtracted before `exp` so that nothing overflows.
fn row_maximum(first: u32) -> f32 {
    var top = logits[first];
    for (var k = 1u; k < params.classes; k++) {
        top = max(top, logits[first + k]);
    }
    return top;
}

// Sum over the row of exp(logit - top), in blocks of 32: rounding errors grow with the block, not with the row.
fn row_sum(first: u32, top: f32) -> f32 {
    var sum = 0.0;
    for (var block = 0u; block < params.classes; block += 32u) {
        var block_sum = 0.0;
        for (var k = block; k < min(block + 32u, params.classes); k++) {
            block_sum += exp(logits[first + k] - top);
        }
        sum += block_sum;
    }
    return sum;
}
