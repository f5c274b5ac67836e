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

// 16 x 16 results of PATCH_WARPS subgroups, row by row.
var<workgroup> patches: array<vec4<f32>, ${64 * PATCH_WARPS}>;

// The invocation's half row of its subgroup's results: columns 8 * (lane % 2) to 8 * (lane % 2) + 7 of row lane / 2, lane counting
// 32. They come through workgroup memory, for PATCH_WARPS subgroups at a time.
fn half_row(c: MatrixC, lane: u32) -> mat2x4<f32> {
    let at = lane / ${SUBGROUP}u % ${PATCH_WARPS}u * 64u;
    let own = at + lane % ${SUBGROUP}u * 2u;
    let turn = lane / ${SUBGROUP * PATCH_WARPS}u;
    var row: mat2x4<f32>;
#for i in 0..WARPS / PATCH_WARPS
    workgroupBarrier();
    if turn == ${i}u {
        coopStoreT(c, &patches[at], 4u);
    }
    workgroupBarrier();
    if turn == ${i}u {
        row = mat2x4<f32>(patches[own], patches[own + 1u]);
    }
#end
    return row;
}

#if RESULTS_DIRECT
// Writes a result to where the partial sums lie.
fn store_partial(c: MatrixC, at: u32, stride: u32, lane: u32) {
    coopStoreT(c, &partials[at], stride);
}
#end
