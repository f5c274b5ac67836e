// From bytes to activations: y = (interpolate(pixel) / 255 - mean) * inverse_std, bilinear with half-pixel centres
// (PyTorch: ToTensor, interpolate(mode='bilinear', align_corners=False) without antialias, Normalize).
// One invocation computes all channels of one output pixel.
// pixels_0: bytes [images of the batch, or of a data set][in_h][in_w][channels], ids: [images of the batch],
// y: [images][out_h][out_w][channels].
//
// Training images may be changed: mirrored and shifted first, brightness and contrast of the resized values, and a square of
// the result left at 0, the mean (cutout: DeVries and Taylor 2017, arXiv 1708.04552). Drawn for each image, from its id and the
// epoch.
#define PARTS 1
#import "shared/image_input.wgsl"
