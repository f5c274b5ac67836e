// The functions of matrix_cooperative.wgsl in ordinary arithmetic, for devices without matrix units: the same tiles, operands
// rounded to f16, products summed in f32. An operand is where it lies and is read when it is multiplied. Of a result, an
// invocation holds half a row: columns 8 * (lane % 2) to 8 * (lane % 2) + 7 of row lane / 2, lane counting 32.
#import "shared/matrix_quads.wgsl"

struct Operand {
    at: u32,
    by_row: u32,       // elements from one row to the next
    by_column: u32,    // elements from one column to the next
    row: u32,          // of this invocation's half row, or its first column
}

alias MatrixA = Operand;
alias MatrixB = Operand;
alias MatrixC = mat2x4<f32>;

fn left_by_rows(at: u32, stride: u32, lane: u32) -> MatrixA {
    return Operand(at * 4u, stride * 4u, 1u, lane / 2u);
}

fn left_by_columns(at: u32, stride: u32, lane: u32) -> MatrixA {
    return Operand(at * 4u, 1u, stride * 4u, lane / 2u);
}

fn right_by_rows(at: u32, stride: u32, lane: u32) -> MatrixB {
    return Operand(at * 4u, stride * 4u, 1u, lane % 2u * 8u);
}

fn right_by_columns(at: u32, stride: u32, lane: u32) -> MatrixB {
    return Operand(at * 4u, 1u, stride * 4u, lane % 2u * 8u);
}

fn left_element(a: MatrixA, k: u32) -> f32 {
    let element = a.at + a.row * a.by_row + k * a.by_column;
    return f32(left[element / 4u][element % 4u]);
}

fn right_element(b: MatrixB, k: u32, column: u32) -> f32 {
    let element = b.at + k * b.by_row + (b.row + column) * b.by_column;
    return f32(right[element / 4u][element % 4u]);
}

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var sums = c;
    for (var k = 0u; k < 16u; k++) {
        let value = left_element(a, k);
#for half in 0..2
#for column in 0..4
        sums[${half}][${column}] += value * right_element(b, k, ${4 * half + column}u);
#end
#end
    }
    return sums;
}

fn store_patch(c: MatrixC, at: u32, lane: u32) {
    patches[at + lane * 2u] = c[0];
    patches[at + lane * 2u + 1u] = c[1];
}
