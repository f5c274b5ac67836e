// A tile of f32 results in registers, and its two operands in workgroup memory: what kernels of implicit matrix products share.
//
// A workgroup has THREAD_ROWS x THREAD_COLUMNS invocations, each with ROW_QUADS x COLUMN_QUADS quads of results. DEPTH steps of
// the reduction are staged at a time; BUFFERS such stages have room, the groups of the second behind those of the first.
#define THREADS THREAD_ROWS * THREAD_COLUMNS
#define LEFT_QUADS THREAD_ROWS * ROW_QUADS
#define RIGHT_QUADS THREAD_COLUMNS * COLUMN_QUADS
#define LEFT_UNITS DEPTH / 4 * LEFT_QUADS
#define UNITS LEFT_UNITS + DEPTH / 4 * RIGHT_QUADS
#define UNITS_EACH (UNITS + THREADS - 1) / THREADS

// [step][quad], the quads of steps 4g..4g+3 permuted by g so that neither storing nor loading meets a memory bank twice.
var<workgroup> left: array<vec4<f32>, ${BUFFERS * DEPTH * LEFT_QUADS}>;
var<workgroup> right: array<vec4<f32>, ${BUFFERS * DEPTH * RIGHT_QUADS}>;

// One invocation's results: element (4 * i + r) * COLUMN_QUADS + j is row r of its quad of rows i, quad of columns j.
alias Sums = array<vec4<f32>, ${4 * ROW_QUADS * COLUMN_QUADS}>;

fn stage_left(group: u32, quad: u32, steps: mat4x4<f32>) {
#for i in 0..4
    left[(group * 4u + ${i}u) * ${LEFT_QUADS}u + (quad ^ (group * 2u))] = steps[${i}];
#end
}

fn stage_right(group: u32, quad: u32, steps: mat4x4<f32>) {
#for i in 0..4
    right[(group * 4u + ${i}u) * ${RIGHT_QUADS}u + (quad ^ (group * 2u))] = steps[${i}];
#end
}

// Adds the products of DEPTH steps, whose first group is `first`.
fn multiply(first: u32, row: u32, column: u32, sums: ptr<function, Sums>) {
    for (var group = first; group < first + ${DEPTH / 4}u; group++) {
        let permute = group * 2u;
#for step in 0..4
#for i in 0..ROW_QUADS
        let left_${step}_${i} = left[(group * 4u + ${step}u) * ${LEFT_QUADS}u + ((row + ${i * THREAD_ROWS}u) ^ permute)];
#end
#for j in 0..COLUMN_QUADS
        let right_${step}_${j} = right[(group * 4u + ${step}u) * ${RIGHT_QUADS}u + ((column + ${j * THREAD_COLUMNS}u) ^ permute)];
#for i in 0..ROW_QUADS
#for r in 0..4
        (*sums)[${(4 * i + r) * COLUMN_QUADS + j}] += left_${step}_${i}[${r}] * right_${step}_${j};
#end
#end
#end
#end
    }
}
