// The ReLU mask of the input gradient (params.relu): 0 where the input activation is not positive. That activation is x, or what
// dx holds until then, where the gradient takes over its memory.
fn masked(value: Element, at: u32) -> Element {
    if params.relu == 1u {
        return select(Element(), value, x[at] > Element());
    }
    if params.relu == 2u {
        return select(Element(), value, dx[at] > Element());
    }
    return value;
}
