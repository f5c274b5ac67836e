// Matrices of 16 x 16 on the device's matrix units, held by a subgroup of 32 invocations. units_emulated.wgsl has the same functions
// in ordinary arithmetic. Positions and strides count quads.
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;

fn left_by_rows(at: u32, stride: u32, lane: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&staged[at], stride);
}

fn left_by_columns(at: u32, stride: u32, lane: u32) -> MatrixA {
    return coopLoad<MatrixA>(&staged[at], stride);
}

fn right_by_rows(at: u32, stride: u32, lane: u32) -> MatrixB {
    return coopLoadT<MatrixB>(&staged[at], stride);
}

fn right_by_columns(at: u32, stride: u32, lane: u32) -> MatrixB {
    return coopLoad<MatrixB>(&staged[at], stride);
}

#if RIGHT_DIRECT
// The right operand from where it lies, one row of the matrix after the other.
fn right_from_buffer(at: u32, stride: u32, lane: u32) -> MatrixB {
    return coopLoadT<MatrixB>(&weight[at], stride);
}
#end

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    return coopMultiplyAdd(a, b, c);
}

fn store_patch(c: MatrixC, at: u32, lane: u32) {
    coopStoreT(c, &patches[at], 4u);
}

#if RESULTS_DIRECT
// Writes a result to where the partial sums lie.
fn store_partial(c: MatrixC, at: u32, stride: u32, lane: u32) {
    coopStoreT(c, &partials[at], stride);
}
#end
