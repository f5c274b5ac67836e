// From bytes to activations: y = (interpolate(pixel) / 255 - mean) * inverse_std, bilinear with half-pixel centres
// (PyTorch: ToTensor, interpolate(mode='bilinear', align_corners=False) without antialias, Normalize).
// One invocation computes all channels of one output pixel.
// pixels_0: bytes [images of the batch, or of a data set][in_h][in_w][channels], ids: [images of the batch],
// y: [images][out_h][out_w][channels].
//
// Training images may be mirrored and shifted first: per image and epoch, drawn from its id.
#define PARTS 1
#import "shared/image_input.wgsl"
