// Matrices of 16 x 16 held by a subgroup of 32 invocations, on the device's matrix units. Positions and strides count vec4s of
// the staged operands and of the results. matrix_simdgroup.wgsl has the same functions for units that hold matrices of 8 x 8,
// matrix_emulated.wgsl in ordinary arithmetic.
#import "shared/matrix_quads.wgsl"

alias MatrixA = coop_mat16x16<Element, A>;
alias MatrixB = coop_mat16x16<Element, B>;
alias MatrixC = coop_mat16x16<f32, C>;

// `left` with one row of the matrix after the other.
fn left_by_rows(at: u32, stride: u32, lane: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&left[at], stride);
}

// `left` with one column of the matrix after the other.
fn left_by_columns(at: u32, stride: u32, lane: u32) -> MatrixA {
    return coopLoad<MatrixA>(&left[at], stride);
}

fn right_by_rows(at: u32, stride: u32, lane: u32) -> MatrixB {
    return coopLoadT<MatrixB>(&right[at], stride);
}

fn right_by_columns(at: u32, stride: u32, lane: u32) -> MatrixB {
    return coopLoad<MatrixB>(&right[at], stride);
}

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    return coopMultiplyAdd(a, b, c);
}

// Writes a result to `patches`, row by row: 4 vec4 a row.
fn store_patch(c: MatrixC, at: u32, lane: u32) {
    coopStoreT(c, &patches[at], 4u);
}
