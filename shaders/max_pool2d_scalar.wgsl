// Max pooling of maps with 1 to 3 channels, or with windows of more than 256 pixels: max_pool2d.wgsl, one element at a
// time, and a word for each winner.
#import "shared/grid.wgsl"
#import "shared/pool2d.wgsl"

alias Value = f32;
alias Offset = u32;
alias Mask = bool;
alias Stored = u32;

fn stored(offset: Offset) -> Stored {
    return offset;
}

fn offset_of(winner: Stored) -> Offset {
    return winner;
}

#import "shared/max_pool2d.wgsl"
