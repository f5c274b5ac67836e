// Max pooling of maps with 1 to 3 channels, or with windows of more than 256 pixels: max_pool2d.wgsl, one element at a
// time, and a word for each winner.
#import "shared/grid.wgsl"
#import "shared/pool2d.wgsl"

alias Value = f32;
alias Stored = ${ELEMENT};
alias Offset = u32;
alias Mask = bool;
alias Packed = u32;

fn packed(offset: Offset) -> Packed {
    return offset;
}

fn offset_of(winner: Packed) -> Offset {
    return winner;
}

#import "shared/max_pool2d.wgsl"
