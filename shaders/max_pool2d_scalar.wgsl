// Max pooling of maps with 1 to 3 channels: max_pool2d.wgsl, one element at a time.
#import "shared/grid.wgsl"
#import "shared/pool2d.wgsl"

alias Value = f32;
alias Stored = ${ELEMENT};
alias Offset = u32;
alias Mask = bool;

#import "shared/max_pool2d.wgsl"
