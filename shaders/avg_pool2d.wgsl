// Average pooling, padding counted as zeros (PyTorch's count_include_pad): y = sum over the window of x / size, where
// size is the part of the window inside the padded input; with rounding up the last window may reach past it.
// Gradient: dx = sum of dy / size over the windows that cover the pixel.
// One invocation computes four channels of a pixel of y, or of dx (a gather in fixed order).
// x, dx: [images][in_h][in_w][channels]; y, dy: [images][out_h][out_w][channels].
#import "shared/grid.wgsl"
#import "shared/pool2d.wgsl"

alias Value = vec4<f32>;
alias Stored = vec4<${ELEMENT}>;

#import "shared/avg_pool2d.wgsl"
