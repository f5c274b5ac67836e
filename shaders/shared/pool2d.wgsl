// Constants of a pooling dispatch, and which windows cover a pixel. Padding is at most half the kernel, so every window
// holds at least one pixel.
struct Pool2dParams {
    elements: u32,    // what the entry point writes: words, or quads of channels
    channels: u32,    // elements of a pixel
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
}

@group(0) @binding(0) var<uniform> params: Pool2dParams;

// An element of a tensor [image][row][column][channel].
struct Place {
    image: u32,
    row: u32,
    column: u32,
    channel: u32,
}

fn place_of(i: u32, height: u32, width: u32) -> Place {
    let pixel = i / params.channels;
    let row = pixel / width;
    let image = row / height;
    return Place(image, row - image * height, pixel - row * width, i - pixel * params.channels);
}

// Along one axis, the first window that reaches the pixel `at`...
fn first_window(at: u32, kernel: u32, stride: u32, pad: u32) -> u32 {
    let end = at + pad + 1u;
    return select(0u, (end - kernel + stride - 1u) / stride, end > kernel);
}

// ... and the one behind the last that starts at or before it.
fn end_window(at: u32, stride: u32, pad: u32, windows: u32) -> u32 {
    return min((at + pad) / stride + 1u, windows);
}
