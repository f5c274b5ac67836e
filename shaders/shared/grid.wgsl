// Linear index of a workgroup. A dispatch of more than 65,535 workgroups is folded over y by the executor, so the last
// row of the grid may reach past the number asked for: callers must check the range. A long dispatch runs in parts of
// whole rows, of which the executor says where they begin.
@group(1) @binding(0) var<uniform> first_workgroup: vec4<u32>;  // x; the rest fills the 16 bytes that drivers ask for

fn workgroup_index(wid: vec3<u32>, num: vec3<u32>) -> u32 {
    return first_workgroup.x + wid.y * num.x + wid.x;
}
