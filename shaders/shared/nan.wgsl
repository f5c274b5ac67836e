// Whether a value is not a number, by its bits: compilers may assume that floats are numbers and fold `v != v`.
fn is_nan(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}
