// The ReLU mask of the input gradient (params.relu): 0 where the input activation is not positive. That activation is x, or what
// dx holds until then, where the gradient takes over its memory. Whoever imports this says what a Value is: f32 or vec4<f32>.
fn masked(value: Value, at: u32) -> Value {
    if params.relu == 1u {
        return select(Value(), value, Value(x[at]) > Value());
    }
    if params.relu == 2u {
        return select(Value(), value, Value(dx[at]) > Value());
    }
    return value;
}
