// Average pooling of maps with 1 to 3 channels: avg_pool2d.wgsl, one element at a time.
#import "shared/grid.wgsl"
#import "shared/pool2d.wgsl"

alias Value = f32;
alias Stored = ${ELEMENT};

#import "shared/avg_pool2d.wgsl"
