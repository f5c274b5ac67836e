// Sums of sums: in one chain of thousands of single-precision additions, results lose digits, and then ReLUs and pools
// decide otherwise than they would. Forward begins a new partial sum every CHANNEL_BLOCK channels (narrow maps: every
// kernel row), the input gradient at every kernel position, the weight gradient every PIXEL_BLOCK pixels.
#define CHANNEL_BLOCK 128
#define PIXEL_BLOCK 256

// Constants of one convolution dispatch: the same for every variant and entry point. Channel counts are those in memory
// (a multiple of 4, or 1 to 3).
struct Conv2dParams {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
    // 1: forward stores max(y, 0); backward_input stores 0 where the input activation x is not above 0. 2: the same, where dx
    // holds that activation until it is written.
    relu: u32,
    // Into how many partial sums the reduction is split, and how much of it each of them covers; the last may cover less.
    // backward_weight: output pixels (of batch * out_h * out_w); forward_partials and backward_input_partials: steps (of
    // kernel_h * kernel_w * channels), a multiple of 16.
    splits: u32,
    per_split: u32,
    // Order of tiles in the subgroup kernels' forward and input gradient. 1: all channels of a tile of pixels, then the
    // next; 0: all pixels of a tile of channels, then the next. Whichever operand the tiles share stays in the cache.
    channels_innermost: u32,
}

@group(0) @binding(0) var<uniform> params: Conv2dParams;
