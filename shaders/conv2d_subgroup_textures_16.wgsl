// conv2d_subgroup_16.wgsl with x, weight and dy read from textures: for convolutions that load every value several times.

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define PIXEL_LANES 4
#define CHANNEL_LANES 4

#import "shared/conv2d_subgroup.wgsl"
#import "shared/conv2d_subgroup_textures.wgsl"
