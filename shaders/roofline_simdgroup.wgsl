// roofline_matrix.wgsl for GPUs whose matrix units hold matrices of 8 x 8: four of them are one of 16 x 16.
enable f16;
enable wgpu_cooperative_matrix;

#import "shared/grid.wgsl"
#import "shared/roofline_matrix.wgsl"
#import "shared/matrix_simdgroup.wgsl"
