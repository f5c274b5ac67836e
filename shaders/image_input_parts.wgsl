// As image_input, for a data set over the largest binding: up to 4 arrays hold images_per_part images each, the last one
// perhaps fewer.
#define PARTS 4
#import "shared/image_input.wgsl"
