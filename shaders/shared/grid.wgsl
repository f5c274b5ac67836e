// Linear index of a workgroup. A dispatch of more than 65,535 workgroups is folded over y by the executor, so the last
// row of the grid may reach past the number asked for: callers must check the range.
fn workgroup_index(wid: vec3<u32>, num: vec3<u32>) -> u32 {
    return wid.y * num.x + wid.x;
}
