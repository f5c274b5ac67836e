// Four neighbouring values as one load. In single precision two of them are one integer: on CPUs a gather takes as long as
// it has elements, whatever their size.
#if HALF
alias Quad = vec4<f16>;

fn values_of(quad: Quad) -> vec4<f32> {
    return vec4<f32>(quad);
}
#else
alias Quad = vec2<u64>;

fn values_of(quad: Quad) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(quad.x), u32(quad.x >> 32u), u32(quad.y), u32(quad.y >> 32u)));
}
#end
