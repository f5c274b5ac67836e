// What subgroups multiply and what comes of it, in workgroup memory as vec4s.
// Of the staged operands either order fits, as DEPTH is below ROWS and COLUMNS: [ROWS][BY_STEPS] or [DEPTH][BY_ROWS]; of the
// right one likewise.
var<workgroup> left: array<vec4<Element>, ${ROWS * BY_STEPS}>;
var<workgroup> right: array<vec4<Element>, ${COLUMNS * BY_STEPS}>;
// One 16 x 16 result of every subgroup.
var<workgroup> patches: array<vec4<f32>, ${64 * WARP_ROWS * WARP_COLUMNS}>;

fn stage_left(at: u32, value: vec4<Element>) {
    left[at] = value;
}

fn stage_right(at: u32, value: vec4<Element>) {
    right[at] = value;
}

fn right_quad(at: u32) -> vec4<f32> {
    return vec4<f32>(right[at]);
}

fn patch_quad(at: u32) -> vec4<f32> {
    return patches[at];
}
