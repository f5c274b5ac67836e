// Multipliers of learning rate (x) and weight decay (y), one pair for each block of the parameters' buffer: every parameter
// starts at a block of its own.
const WORDS_OF_A_BLOCK: u32 = 64u;
