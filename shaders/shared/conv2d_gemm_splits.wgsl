// Forward and input gradient of conv2d_gemm_*.wgsl where their tiles are too few to fill the device: each workgroup sums a
// part of the reduction, and conv2d_reduce.wgsl adds the parts.

// Stores the partial sums of a tile of `rows` by 4 * `quads` results: partials [splits, rows, 4 * quads].
fn store_partials(lane: u32, tile: Tile, rows: u32, quads: u32, sums: ptr<function, Sums>) {
    let row = lane / ${THREAD_COLUMNS}u;
    let column = lane % ${THREAD_COLUMNS}u;
#for j in 0..COLUMN_QUADS
    let quad_of_${j} = tile.first_quad + column + ${j * THREAD_COLUMNS}u;
    if quad_of_${j} < quads {
#for i in 0..ROW_QUADS
#for r in 0..4
        let row_${i}_${r} = tile.first + (row + ${i * THREAD_ROWS}u) * 4u + ${r}u;
        if row_${i}_${r} < rows {
            partials[(tile.split * rows + row_${i}_${r}) * quads + quad_of_${j}] = (*sums)[${(4 * i + r) * COLUMN_QUADS + j}];
        }
#end
#end
    }
#end
}

@compute @workgroup_size(${THREADS})
fn forward_partials(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let out_c4 = params.out_c / 4u;
    let pixels = params.batch * params.out_h * params.out_w;
    let tile = tile_of(workgroup_index(wid, num), pixels, out_c4);
    if tile.split >= params.splits {
        return;
    }
    let steps = params.kernel_h * params.kernel_w * params.in_c;
    let begin = tile.split * params.per_split;
    var sums = Sums();
    sum_forward(lane, tile, begin, min(begin + params.per_split, steps), &sums);
    store_partials(lane, tile, pixels, out_c4, &sums);
}

@compute @workgroup_size(${THREADS})
fn backward_input_partials(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) num: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let in_c4 = params.in_c / 4u;
    let pixels = params.batch * params.in_h * params.in_w;
    let tile = tile_of(workgroup_index(wid, num), pixels, in_c4);
    if tile.split >= params.splits {
        return;
    }
    let steps = params.kernel_h * params.kernel_w * params.out_c;
    let begin = tile.split * params.per_split;
    var sums = Sums();
    sum_backward_input(lane, tile, begin, min(begin + params.per_split, steps), &sums);
    store_partials(lane, tile, pixels, in_c4, &sums);
}
