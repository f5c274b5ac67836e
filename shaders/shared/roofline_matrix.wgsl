// The kernel of roofline_matrix.wgsl, roofline_simdgroup.wgsl and roofline_emulated.wgsl, which differ in who multiplies.
// Every subgroup of 32 holds 2 left and 4 right matrices of 16 x 16 in f16 and adds their products to 8 results in f32, 8
// times a round; then the left ones change places, so that no product is the same in the next round. Operands are whole
// numbers from -3 to 3 that depend on their place: every sum is exact and known to the host, which takes no figure from wrong
// ones. Values that vary, as data does: units draw less power for zeros, and clocks follow.
// sums: [invocations], half a row of all results of its subgroup each.

#define SUBGROUP 32
#define WARP_ROWS 2
#define WARP_COLUMNS 2
#define THREADS SUBGROUP * WARP_ROWS * WARP_COLUMNS
#define LEFT 2
#define RIGHT 4
#define LINKS 8
// What matrix_quads.wgsl goes by: left by rows, [ROWS][BY_STEPS] quads; right by steps, [16][COLUMNS / 4] quads.
#define ROWS 16 * LEFT
#define COLUMNS 16 * RIGHT
#define BY_STEPS 4

alias Element = f16;

struct RooflineMatrixParams {
    rounds: u32,
}

@group(0) @binding(0) var<uniform> params: RooflineMatrixParams;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

// Four operands from number `first` on.
fn operands(first: u32) -> vec4<Element> {
    let mixed = (vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u)) * 2654435761u;
    return vec4<Element>(vec4<i32>((mixed >> vec4<u32>(24u)) % vec4<u32>(7u)) - vec4<i32>(3));
}

@compute @workgroup_size(${THREADS})
fn multiply_add_matrices(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
#for i in 0..ROWS * BY_STEPS / THREADS
    stage_left(lane + ${i * THREADS}u, operands((lane + ${i * THREADS}u) * 4u));
#end
#for i in 0..COLUMNS * BY_STEPS / THREADS
    stage_right(lane + ${i * THREADS}u, operands(${ROWS * BY_STEPS * 4}u + (lane + ${i * THREADS}u) * 4u));
#end
    workgroupBarrier();
#for i in 0..LEFT
    var a_${i} = left_by_rows(${16 * i * BY_STEPS}u, ${BY_STEPS}u, lane % ${SUBGROUP}u);
#end
#for j in 0..RIGHT
    let b_${j} = right_by_rows(${4 * j}u, ${COLUMNS / 4}u, lane % ${SUBGROUP}u);
#end
#for i in 0..LEFT
#for j in 0..RIGHT
    var sum_${i}_${j} = MatrixC();
#end
#end
    for (var round = 0u; round < params.rounds; round++) {
#for link in 0..LINKS
#for i in 0..LEFT
#for j in 0..RIGHT
        sum_${i}_${j} = multiply_add(a_${i}, b_${j}, sum_${i}_${j});
#end
#end
#end
        let first = a_0;
        a_0 = a_1;
        a_1 = first;
    }
    var sum = vec4<f32>();
    let patch_of_subgroup = lane / ${SUBGROUP}u * 64u;
#for i in 0..LEFT
#for j in 0..RIGHT
    store_patch(sum_${i}_${j}, patch_of_subgroup, lane % ${SUBGROUP}u);
    workgroupBarrier();
    sum += patch_quad(patch_of_subgroup + lane % ${SUBGROUP}u * 2u) + patch_quad(patch_of_subgroup + lane % ${SUBGROUP}u * 2u + 1u);
    workgroupBarrier();
#end
#end
    sums[workgroup_index(workgroup, count) * ${THREADS}u + lane] = sum.x + sum.y + sum.z + sum.w;
}
