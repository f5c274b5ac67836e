// Max pooling: y = max over the window's pixels of x; padding is never the maximum, and of equal pixels the first in
// scan order wins. The gradient goes to the winner: dx = sum of dy over the windows that the pixel won.
// One invocation computes four channels of a pixel of y, or of dx (a gather in fixed order).
// x, dx: [images][in_h][in_w][channels]; y, dy, winner: [images][out_h][out_w][channels], winner being the offset
// ky * kernel_w + kx of the largest pixel in its window, a byte for each channel: windows have at most 256 pixels.
#import "shared/grid.wgsl"
#import "shared/pool2d.wgsl"

alias Value = vec4<f32>;
alias Offset = vec4<u32>;
alias Mask = vec4<bool>;
alias Stored = u32;

fn stored(offset: Offset) -> Stored {
    return offset.x | (offset.y << 8u) | (offset.z << 16u) | (offset.w << 24u);
}

fn offset_of(winner: Stored) -> Offset {
    return (Offset(winner) >> Offset(0u, 8u, 16u, 24u)) & Offset(0xffu);
}

#import "shared/max_pool2d.wgsl"
