// 2-D convolution for devices that run a workgroup on SIMD lanes of a CPU (llvmpipe, SwiftShader, WARP): no barriers,
// no workgroup memory. Channel counts in memory are multiples of 4; conv2d_lanes_narrow.wgsl and conv2d_lanes_scalar.wgsl take
// the others.
//
//   forward          y[n,oy,ox,o]      = bias[o] + sum over ky,kx,c of x[n, oy*s+ky-p, ox*s+kx-p, c] * weight[ky,kx,c,o]
//   backward_input   dx[n,iy,ix,c]     = sum over ky,kx,o of dy[n, (iy+p-ky)/s, (ix+p-kx)/s, o] * weight[ky,kx,c,o]
//   backward_weight  dweight[ky,kx,c,o] = sum over n,oy,ox of x[n, oy*s+ky-p, ox*s+kx-p, c] * dy[n,oy,ox,o]
//                    dbias[o]           = sum over n,oy,ox of dy[n,oy,ox,o]
//
// where positions outside a map count as 0, and divisions must be exact.
//
// Every invocation computes one tile of 8 x 16 results in registers, and no two share anything. llvmpipe (Mesa 22.3)
// loads lane by lane, about 300 instructions for one vec4 of all 8 lanes, even where all lanes read the same address;
// so what counts is the number of vec4 loads for each multiply-add: here 24 for 512. Tiles of 16 x 16, with 32 for 1,024, take twice
// as long to compile and are no faster but in the weight gradient (benches/RESULTS.md, "Three llvmpipes").
//
// Bindings, all in vec4 along the channels: x and dx [batch, in_h, in_w, in_c], y and dy [batch, out_h, out_w, out_c],
// weight [kernel_h, kernel_w, in_c, out_c], bias [out_c], partials [splits, kernel_h * kernel_w * in_c + 1, out_c]
// (the last row is the bias gradient's; conv2d_reduce.wgsl sums over the splits).

#import "shared/grid.wgsl"
#import "shared/conv2d.wgsl"

#define LANES 16
#define PIXELS 8
#define QUADS 4
#define ROW_QUADS 2

#import "shared/conv2d_lanes.wgsl"
