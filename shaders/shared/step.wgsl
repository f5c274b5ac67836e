// Values that change from step to step, written by the host once per submit, one per micro-batch.
struct Step {
    step: u32,              // optimizer steps done before this one
    epoch: u32,             // from 0
    seed_lo: u32,           // the run's seed, the key of every random number
    seed_hi: u32,
    first_image: u32,       // index within the batch of this micro-batch's first image
    images: u32,            // rows of this micro-batch that hold an image; the rest is ignored
    total_images: u32,      // images in the whole batch, the divisor of the mean loss
    metrics_slot: u32,      // entry of the metrics ring that this micro-batch writes
    learning_rate: f32,
    bias_correction1: f32,  // Adam: 1 - beta1^t
    bias_correction2: f32,  // Adam: 1 - beta2^t
}
