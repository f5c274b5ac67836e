// The functions of matrix_cooperative.wgsl for units that hold matrices of 8 x 8, as those of Apple's GPUs: a matrix of 16 x 16
// is four of them. Memory is scalars, because Metal takes only pointers to those; positions and strides count four of them.
var<workgroup> left: array<Element, ${4 * ROWS * BY_STEPS}>;
var<workgroup> right: array<Element, ${4 * COLUMNS * BY_STEPS}>;
// One 16 x 16 result of every subgroup.
var<workgroup> patches: array<f32, ${256 * WARP_ROWS * WARP_COLUMNS}>;

fn stage_left(at: u32, value: vec4<Element>) {
#for i in 0..4
    left[at * 4u + ${i}u] = value[${i}];
#end
}

fn stage_right(at: u32, value: vec4<Element>) {
#for i in 0..4
    right[at * 4u + ${i}u] = value[${i}];
#end
}

fn right_quad(at: u32) -> vec4<f32> {
    let first = at * 4u;
    return vec4<f32>(vec4<Element>(right[first], right[first + 1u], right[first + 2u], right[first + 3u]));
}

fn patch_quad(at: u32) -> vec4<f32> {
    let first = at * 4u;
    return vec4<f32>(patches[first], patches[first + 1u], patches[first + 2u], patches[first + 3u]);
}

alias EightA = coop_mat8x8<Element, A>;
alias EightB = coop_mat8x8<Element, B>;
alias EightC = coop_mat8x8<f32, C>;

// Block (i, j) of a matrix has rows from 8 * i and columns from 8 * j.
struct MatrixA {
#for i in 0..2
#for j in 0..2
    block_${i}_${j}: EightA,
#end
#end
}

struct MatrixB {
#for i in 0..2
#for j in 0..2
    block_${i}_${j}: EightB,
#end
#end
}

struct MatrixC {
#for i in 0..2
#for j in 0..2
    block_${i}_${j}: EightC,
#end
#end
}

fn left_by_rows(at: u32, stride: u32, lane: u32) -> MatrixA {
    return MatrixA(
#for i in 0..2
#for j in 0..2
        coopLoadT<EightA>(&left[(at + ${8 * i}u * stride) * 4u + ${8 * j}u], stride * 4u),
#end
#end
    );
}

fn left_by_columns(at: u32, stride: u32, lane: u32) -> MatrixA {
    return MatrixA(
#for i in 0..2
#for j in 0..2
        coopLoad<EightA>(&left[(at + ${8 * j}u * stride) * 4u + ${8 * i}u], stride * 4u),
#end
#end
    );
}

fn right_by_rows(at: u32, stride: u32, lane: u32) -> MatrixB {
    return MatrixB(
#for i in 0..2
#for j in 0..2
        coopLoadT<EightB>(&right[(at + ${8 * i}u * stride) * 4u + ${8 * j}u], stride * 4u),
#end
#end
    );
}

fn right_by_columns(at: u32, stride: u32, lane: u32) -> MatrixB {
    return MatrixB(
#for i in 0..2
#for j in 0..2
        coopLoad<EightB>(&right[(at + ${8 * j}u * stride) * 4u + ${8 * i}u], stride * 4u),
#end
#end
    );
}

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var sums = c;
#for i in 0..2
#for j in 0..2
#for k in 0..2
    sums.block_${i}_${j} = coopMultiplyAdd(a.block_${i}_${k}, b.block_${k}_${j}, sums.block_${i}_${j});
#end
#end
#end
    return sums;
}

fn store_patch(c: MatrixC, at: u32, lane: u32) {
#for i in 0..2
#for j in 0..2
    coopStoreT(c.block_${i}_${j}, &patches[at * 4u + ${128 * i + 8 * j}u], 16u);
#end
#end
}
