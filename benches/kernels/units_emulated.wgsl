// The functions of units_cooperative.wgsl in ordinary arithmetic, for devices without matrix units: the same tiles and the same
// memory. An operand is where it lies and is read when it is multiplied. Of a result an invocation holds half a row: columns
// 8 * (lane % 2) to 8 * (lane % 2) + 7 of row lane / 2, lane counting 32.
struct Operand {
    at: u32,           // in halves
    by_row: u32,       // halves from one row to the next
    by_column: u32,    // halves from one column to the next
    first: u32,        // this invocation's row, or its first column
    direct: bool,      // in the buffer of weights
}

alias MatrixA = Operand;
alias MatrixB = Operand;
alias MatrixC = mat2x4<f32>;

fn left_by_rows(at: u32, stride: u32, lane: u32) -> MatrixA {
    return Operand(at * 4u, stride * 4u, 1u, lane / 2u, false);
}

fn left_by_columns(at: u32, stride: u32, lane: u32) -> MatrixA {
    return Operand(at * 4u, 1u, stride * 4u, lane / 2u, false);
}

fn right_by_rows(at: u32, stride: u32, lane: u32) -> MatrixB {
    return Operand(at * 4u, stride * 4u, 1u, lane % 2u * 8u, false);
}

fn right_by_columns(at: u32, stride: u32, lane: u32) -> MatrixB {
    return Operand(at * 4u, 1u, stride * 4u, lane % 2u * 8u, false);
}

#if RIGHT_DIRECT
fn right_from_buffer(at: u32, stride: u32, lane: u32) -> MatrixB {
    return Operand(at * 4u, stride * 4u, 1u, lane % 2u * 8u, true);
}
#end

fn half_at(operand: Operand, place: u32) -> f32 {
#if RIGHT_DIRECT
    if operand.direct {
        return f32(weight[place / 4u][place % 4u]);
    }
#end
    return f32(staged[place / 4u][place % 4u]);
}

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var sums = c;
    for (var k = 0u; k < 16u; k++) {
        let value = half_at(a, a.at + a.first * a.by_row + k * a.by_column);
#for half in 0..2
#for column in 0..4
        sums[${half}][${column}] += value * half_at(b, b.at + k * b.by_row + (b.first + ${4 * half + column}u) * b.by_column);
#end
#end
    }
    return sums;
}

fn store_patch(c: MatrixC, at: u32, lane: u32) {
    patches[at + lane * 2u] = c[0];
    patches[at + lane * 2u + 1u] = c[1];
}

#if RESULTS_DIRECT
fn store_partial(c: MatrixC, at: u32, stride: u32, lane: u32) {
#for half in 0..2
    partials[at + lane / 2u * stride + lane % 2u * 2u + ${half}u] = c[${half}];
#end
}
#end
