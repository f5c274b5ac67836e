// roofline_matrix.wgsl in ordinary arithmetic, for proving it on devices without matrix units: its figure means nothing.
enable f16;

#import "shared/grid.wgsl"
#import "shared/roofline_matrix.wgsl"
#import "shared/matrix_emulated.wgsl"
