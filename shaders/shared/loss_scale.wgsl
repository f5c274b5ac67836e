// Dynamic loss scaling: in mixed precision the loss's gradient, and so every gradient, is multiplied by `scale`, because
// half precision rounds small numbers to zero. Where a gradient comes out infinite or not a number, the step is skipped and the
// scale halved.
struct LossScale {
    scale: f32,               // a power of two
    inverse: f32,             // 1 / scale, exact
    good_steps: u32,          // updates since the scale last changed
    skipped_steps: u32,       // of the run
    bias_correction1: f32,    // Adam's, of the last update: skipped steps do not count
    bias_correction2: f32,
    overflow: u32,            // 1: a gradient of this step is not finite
}

// Word of `overflow`, for the kernel that sets it.
const OVERFLOW_WORD: u32 = 6u;
