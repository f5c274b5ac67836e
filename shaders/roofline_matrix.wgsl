// What matrix units for 16 x 16 reach at most: products of f16 summed in f32, all in registers.
enable f16;
enable wgpu_cooperative_matrix;

#import "shared/grid.wgsl"
#import "shared/roofline_matrix.wgsl"
#import "shared/matrix_cooperative.wgsl"
