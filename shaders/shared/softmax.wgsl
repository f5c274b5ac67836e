// The sums over a row of logits that softmax and cross entropy share. The including shader declares `logits`, and `params`
// with `classes` and `channels` (classes in memory).

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

// Class k of a row's probabilities; 0 in padding lanes.
fn probability(first: u32, k: u32, top: f32, sum: f32) -> f32 {
    return select(0.0, exp(logits[first + k] - top) / sum, k < params.classes);
}
