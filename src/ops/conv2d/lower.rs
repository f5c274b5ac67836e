//! Which convolution kernel runs where, and with which constants, workgroups and scratch memory.

use super::{Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight};
use crate::graph::{Lowered, Lowering, Op, Operand};
use crate::kernels::{
    Conv2dParams, DeviceClass, Dispatch, Target, conv2d_gemm_64x64, conv2d_gemm_128x96, conv2d_gemm_128x128, conv2d_gemm_narrow,
    conv2d_lanes, conv2d_lanes_narrow, conv2d_lanes_narrow_small, conv2d_lanes_scalar, conv2d_lanes_small, conv2d_reduce,
    conv2d_subgroup_8, conv2d_subgroup_16, conv2d_subgroup_narrow_8, conv2d_subgroup_narrow_16, conv2d_subgroup_textures_8,
    conv2d_subgroup_textures_16, conv2d_tiled, texture_copy, workgroups_for,
};
use crate::shape::{Fact, Window, channels_in_memory};

/// Which of the shader files computes a convolution. All have the same entry points and bindings, and results that
/// differ by rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// `conv2d_lanes`: CPU devices, channels in memory multiples of 4 on both sides.
    Lanes,
    /// `conv2d_lanes_small`: as `Lanes`, for little work.
    LanesSmall,
    /// `conv2d_lanes_narrow`: CPU devices, 1 to 3 input channels, outputs a multiple of 4: first layers.
    LanesNarrow,
    /// `conv2d_lanes_narrow_small`: as `LanesNarrow`, for little work.
    LanesNarrowSmall,
    /// `conv2d_lanes_scalar`: CPU devices, any channels.
    LanesScalar,
    /// `conv2d_subgroup_8`: as `Lanes`, where subgroups are 8 lanes wide.
    Subgroup8,
    /// `conv2d_subgroup_16`: as `Lanes`, where subgroups are 16 lanes wide.
    Subgroup16,
    /// `conv2d_subgroup_textures_8`: as `Subgroup8`, where values are loaded several times.
    SubgroupTextures8,
    /// `conv2d_subgroup_textures_16`: as `Subgroup16`, where values are loaded several times.
    SubgroupTextures16,
    /// `conv2d_subgroup_narrow_8`: as `LanesNarrow`, where subgroups are 8 lanes wide.
    SubgroupNarrow8,
    /// `conv2d_subgroup_narrow_16`: as `LanesNarrow`, where subgroups are 16 lanes wide.
    SubgroupNarrow16,
    /// `conv2d_gemm_128x128`: GPUs, channels in memory multiples of 4 on both sides.
    Gemm128x128,
    /// `conv2d_gemm_128x96`: as `Gemm128x128`, for channel counts that fill its tiles better.
    Gemm128x96,
    /// `conv2d_gemm_64x64`: as `Gemm128x128`, for integrated GPUs and for few tiles.
    Gemm64x64,
    /// `conv2d_gemm_narrow`: GPUs, 1 to 3 input channels, outputs a multiple of 4: first layers.
    GemmNarrow,
    /// `conv2d_tiled`: GPUs, any channels.
    Tiled,
}

/// Results of a workgroup.
struct Tiling {
    /// Pixels of a forward or input-gradient tile.
    pixels: u32,
    /// Channels of a forward or input-gradient tile; output channels of a weight-gradient tile.
    channels: u32,
    /// Rows (ky, kx, c) of a weight-gradient tile.
    rows: u32,
    /// Tiles in one workgroup.
    per_workgroup: u32,
}

/// What one core of a CPU device is taken to keep in its own cache: half of the usual megabyte.
const CACHE_BYTES: u64 = 512 << 10;

/// Most memory for partial sums of a weight gradient that is split for the cache's sake.
const MOST_PARTIALS_BYTES: u64 = 6 << 20;

/// A split of the weight gradient covers at least this many pixels, so that storing its partial sums stays cheap
/// beside computing them.
const MIN_PIXELS_PER_SPLIT: u32 = 64;

/// A split of forward's or the input gradient's reduction covers at least this many steps, for the same reason.
const MIN_STEPS_PER_SPLIT: u32 = 128;

/// Steps of the reduction that the GPUs' kernels stage at a time: a split is a multiple of it.
const STEPS_STAGED: u32 = 16;

/// [`Conv2dParams::relu`] of an input gradient that takes over the memory of the activation that masks it.
const MASK_IN_PLACE: u32 = 2;

/// What a direction computes, as a matrix: `rows` by `channels` results.
enum Results {
    /// Rows are pixels.
    Pixels { rows: u32, channels: u32 },
    /// Rows are those of the weight: (ky, kx, c).
    Weights { rows: u32, channels: u32 },
}

impl Variant {
    /// CPU devices run barriers and workgroup memory badly, so they get the lanes; `vec4` loads need whole quads. Small
    /// tiles where compiling large ones would take longer than computing; tiles of subgroups are the largest, and good
    /// where at least half of a tile is used.
    fn choose(target: &Target, params: &Conv2dParams, results: &Results) -> Self {
        let sums = u64::from(params.batch * params.out_h * params.out_w) * u64::from(params.out_c);
        let is_little = sums * u64::from(params.kernel_h * params.kernel_w * params.in_c) < target.little_work;
        let subgroups = |eight: Self, sixteen: Self| {
            let variant = match target.subgroup {
                Some(8) => eight,
                Some(16) => sixteen,
                _ => return None,
            };
            (variant.use_of_tiles(results) >= 0.5).then_some(variant)
        };
        match (target.class, params.in_c.is_multiple_of(4), params.out_c.is_multiple_of(4)) {
            (DeviceClass::Integrated, true, true) => Self::Gemm64x64,
            (DeviceClass::Discrete, true, true) => Self::gemm(target, results),
            (DeviceClass::Integrated | DeviceClass::Discrete, false, true) => Self::GemmNarrow,
            (DeviceClass::Integrated | DeviceClass::Discrete, _, false) => Self::Tiled,
            (DeviceClass::Cpu, true, true) if is_little => Self::LanesSmall,
            (DeviceClass::Cpu, true, true) => subgroups(Self::Subgroup8, Self::Subgroup16).unwrap_or(Self::Lanes),
            (DeviceClass::Cpu, false, true) if is_little => Self::LanesNarrowSmall,
            (DeviceClass::Cpu, false, true) => subgroups(Self::SubgroupNarrow8, Self::SubgroupNarrow16).unwrap_or(Self::LanesNarrow),
            (DeviceClass::Cpu, _, false) => Self::LanesScalar,
        }
    }

    /// The same with `operands` brought into textures where that pays and the device's textures hold them.
    fn through_textures(self, target: &Target, macs: u64, operands: [&Fact; 2]) -> Self {
        // Loads of one lane for 1024 multiply-adds.
        let (loads, through_textures) = match self {
            Self::Subgroup8 => (12, Self::SubgroupTextures8),
            Self::Subgroup16 => (8, Self::SubgroupTextures16),
            _ => return self,
        };
        let quads: u64 = operands.iter().map(|fact| fact.words() as u64 / 4).sum();
        let fits = operands.iter().all(|fact| texture_bytes_of(fact) <= target.max_texture_bytes.min(target.max_buffer_bytes));
        let pays = macs / 1024 * loads >= quads.saturating_mul(target.texture_reuse);
        if fits && pays { through_textures } else { self }
    }

    /// The tiles for a discrete GPU: of the large ones those that are used best, unless they are too few to fill it.
    fn gemm(target: &Target, results: &Results) -> Self {
        let large = if Self::Gemm128x96.use_of_tiles(results) > Self::Gemm128x128.use_of_tiles(results) {
            Self::Gemm128x96
        } else {
            Self::Gemm128x128
        };
        match results {
            Results::Pixels { rows, channels } if large.workgroups(*rows, *channels) < target.filling_workgroups.into() => Self::Gemm64x64,
            // Splits of the reduction fill the device, but a tile that is mostly padding is wasted work.
            Results::Weights { .. } if large.use_of_tiles(results) < 0.5 * Self::Gemm64x64.use_of_tiles(results) => Self::Gemm64x64,
            _ => large,
        }
    }

    /// The share of its tiles' results that are results of the convolution.
    fn use_of_tiles(self, results: &Results) -> f64 {
        let tiling = self.tiling();
        let (rows, tile_rows, channels) = match results {
            Results::Pixels { rows, channels } => (*rows, tiling.pixels, *channels),
            Results::Weights { rows, channels } => (*rows, tiling.rows, *channels),
        };
        let share = |used: u32, tile: u32| f64::from(used) / f64::from(used.next_multiple_of(tile));
        share(rows, tile_rows) * share(channels, tiling.channels)
    }

    fn tiling(self) -> Tiling {
        match self {
            Self::LanesSmall | Self::LanesNarrowSmall => Tiling { pixels: 4, channels: 8, rows: 4, per_workgroup: 16 },
            Self::Lanes | Self::LanesNarrow => Tiling { pixels: 16, channels: 16, rows: 16, per_workgroup: 16 },
            Self::LanesScalar => Tiling { pixels: 4, channels: 4, rows: 4, per_workgroup: 16 },
            Self::Subgroup8 | Self::SubgroupTextures8 | Self::SubgroupNarrow8 => {
                Tiling { pixels: 64, channels: 32, rows: 64, per_workgroup: 1 }
            }
            Self::Subgroup16 | Self::SubgroupTextures16 | Self::SubgroupNarrow16 => {
                Tiling { pixels: 64, channels: 64, rows: 64, per_workgroup: 1 }
            }
            Self::Gemm128x128 => Tiling { pixels: 128, channels: 128, rows: 128, per_workgroup: 1 },
            Self::Gemm128x96 | Self::GemmNarrow => Tiling { pixels: 128, channels: 96, rows: 128, per_workgroup: 1 },
            Self::Gemm64x64 => Tiling { pixels: 64, channels: 64, rows: 64, per_workgroup: 1 },
            Self::Tiled => Tiling { pixels: 64, channels: 64, rows: 64, per_workgroup: 1 },
        }
    }

    /// Splits the reduction of `steps` steps where `workgroups` leave most of the device idle and there is a kernel for
    /// it: how often, and how many steps each split covers.
    fn split(self, target: &Target, workgroups: u64, steps: u32) -> (u32, u32) {
        let wanted = match self {
            Self::Gemm64x64 => u64::from(target.filling_workgroups) / workgroups.max(1),
            _ => 1,
        };
        let splits = wanted.min(u64::from(steps / MIN_STEPS_PER_SPLIT)).max(1) as u32;
        let per_split = steps.div_ceil(splits).next_multiple_of(STEPS_STAGED);
        (steps.div_ceil(per_split).max(1), per_split)
    }

    /// Workgroups for `pixels` by `channels` results.
    fn workgroups(self, pixels: u32, channels: u32) -> u64 {
        let tiling = self.tiling();
        let tiles = u64::from(pixels.div_ceil(tiling.pixels)) * u64::from(channels.div_ceil(tiling.channels));
        tiles.div_ceil(tiling.per_workgroup.into())
    }
}

/// The constants of a convolution of `x` to `y`.
fn params(window: &Window, x: &Fact, y: &Fact, relu: bool) -> Conv2dParams {
    let [n, in_c, in_h, in_w] = x.shape.four();
    let [_, out_c, out_h, out_w] = y.shape.four();
    let weight_bytes = (window.kernel[0] * window.kernel[1] * channels_in_memory(in_c) * channels_in_memory(out_c) * 4) as u64;
    Conv2dParams {
        batch: n as u32,
        in_h: in_h as u32,
        in_w: in_w as u32,
        in_c: channels_in_memory(in_c) as u32,
        out_h: out_h as u32,
        out_w: out_w as u32,
        out_c: channels_in_memory(out_c) as u32,
        kernel_h: window.kernel[0] as u32,
        kernel_w: window.kernel[1] as u32,
        stride_h: window.stride[0] as u32,
        stride_w: window.stride[1] as u32,
        pad_h: window.padding[0] as u32,
        pad_w: window.padding[1] as u32,
        relu: relu.into(),
        splits: 1,
        per_split: 0,
        channels_innermost: u32::from(weight_bytes <= CACHE_BYTES),
        ..Conv2dParams::default()
    }
}

/// The two dispatches of a split reduction whose result has `elements` words.
fn in_two_stages(accumulate: Dispatch<Operand>, reduce: Dispatch<Operand>, elements: usize, splits: u32) -> Lowered {
    Lowered { dispatches: vec![accumulate, reduce], scratch: vec![elements as u64 * u64::from(splits) * 4], ..Default::default() }
}

/// Bytes of the texture that holds a tensor: f32 in either precision.
fn texture_bytes_of(fact: &Fact) -> u64 {
    fact.words() as u64 * 4
}

/// `lowered` with two operands, given with their facts, copied into the node's textures first.
fn with_textures(operands: [(Operand, &Fact); 2], mut lowered: Lowered) -> Lowered {
    lowered.textures = operands.iter().map(|(_, fact)| texture_bytes_of(fact)).collect();
    let copies = operands.iter().enumerate().map(|(index, (operand, fact))| {
        let quads = fact.words() / 4;
        let params = texture_copy::Params { quads: quads as u32, ..Default::default() };
        texture_copy::copy(params, *operand, Operand::Texture(index), workgroups_for(&texture_copy::COPY, quads))
    });
    lowered.dispatches = copies.chain(lowered.dispatches).collect();
    lowered
}

pub(super) fn forward(op: &Conv2d, node: &Lowering<'_>) -> Lowered {
    let mut params = params(&op.window, node.inputs[0], node.outputs[0], op.relu);
    let pixels = params.batch * params.out_h * params.out_w;
    let variant = Variant::choose(node.target, &params, &Results::Pixels { rows: pixels, channels: params.out_c });
    let variant = variant.through_textures(node.target, op.macs(&node.inputs, &node.outputs), [node.inputs[0], node.inputs[1]]);
    let workgroups = variant.workgroups(pixels, params.out_c);
    let (x, weight, bias, y) = (Operand::Input(0), Operand::Input(1), Operand::Input(2), Operand::Output(0));
    let (splits, per_split) = variant.split(node.target, workgroups, params.kernel_h * params.kernel_w * params.in_c);
    if splits > 1 {
        (params.splits, params.per_split) = (splits, per_split);
        let partials = Operand::Scratch(0);
        let elements = node.outputs[0].words();
        let accumulate = conv2d_gemm_64x64::forward_partials(params, x, weight, partials, workgroups * u64::from(splits));
        let groups = workgroups_for(&conv2d_reduce::REDUCE_FORWARD, elements);
        return in_two_stages(accumulate, conv2d_reduce::reduce_forward(params, bias, y, partials, groups), elements, splits);
    }
    let kernel: Option<fn(_, _, _, _, _, _) -> Dispatch<Operand>> = match variant {
        Variant::SubgroupTextures8 => Some(conv2d_subgroup_textures_8::forward),
        Variant::SubgroupTextures16 => Some(conv2d_subgroup_textures_16::forward),
        _ => None,
    };
    if let Some(kernel) = kernel {
        let dispatch = kernel(params, bias, y, Operand::Texture(0), Operand::Texture(1), workgroups);
        return with_textures([(x, node.inputs[0]), (weight, node.inputs[1])], dispatch.into());
    }
    let kernel: fn(_, _, _, _, _, _) -> Dispatch<Operand> = match variant {
        Variant::Lanes => conv2d_lanes::forward,
        Variant::LanesSmall => conv2d_lanes_small::forward,
        Variant::LanesNarrow => conv2d_lanes_narrow::forward,
        Variant::LanesNarrowSmall => conv2d_lanes_narrow_small::forward,
        Variant::LanesScalar => conv2d_lanes_scalar::forward,
        Variant::SubgroupNarrow8 => conv2d_subgroup_narrow_8::forward,
        Variant::SubgroupNarrow16 => conv2d_subgroup_narrow_16::forward,
        Variant::Gemm128x128 => conv2d_gemm_128x128::forward,
        Variant::Gemm128x96 => conv2d_gemm_128x96::forward,
        Variant::Gemm64x64 => conv2d_gemm_64x64::forward,
        Variant::GemmNarrow => conv2d_gemm_narrow::forward,
        Variant::Tiled => conv2d_tiled::forward,
        Variant::Subgroup8 => conv2d_subgroup_8::forward,
        Variant::Subgroup16 => conv2d_subgroup_16::forward,
        Variant::SubgroupTextures8 | Variant::SubgroupTextures16 => unreachable!("they have other operands and are above"),
    };
    kernel(params, x, weight, bias, y, workgroups).into()
}

pub(super) fn backward_input(op: &Conv2dBackwardInput, node: &Lowering<'_>) -> Lowered {
    let mut params = params(&op.window, node.outputs[0], node.inputs[0], op.mask);
    if node.in_place {
        params.relu = MASK_IN_PLACE;
    }
    let pixels = params.batch * params.in_h * params.in_w;
    let results = Results::Pixels { rows: pixels, channels: params.in_c };
    // Narrow layers come first and rarely need this gradient: it has no kernel of its own.
    let variant = match Variant::choose(node.target, &params, &results) {
        Variant::LanesNarrow | Variant::LanesNarrowSmall | Variant::SubgroupNarrow8 | Variant::SubgroupNarrow16 => Variant::LanesScalar,
        Variant::GemmNarrow => Variant::Tiled,
        other => other.through_textures(node.target, op.macs(&node.inputs, &node.outputs), [node.inputs[1], node.inputs[0]]),
    };
    let workgroups = variant.workgroups(pixels, params.in_c);
    let (dy, weight, dx) = (Operand::Input(0), Operand::Input(1), Operand::Output(0));
    // Without a mask, or with one in dx, the kernel does not read x: dy stands in for it.
    let x = if op.mask && !node.in_place { Operand::Input(2) } else { dy };
    let (splits, per_split) = variant.split(node.target, workgroups, params.kernel_h * params.kernel_w * params.out_c);
    if splits > 1 {
        (params.splits, params.per_split) = (splits, per_split);
        let partials = Operand::Scratch(0);
        let elements = node.outputs[0].words();
        let accumulate = conv2d_gemm_64x64::backward_input_partials(params, weight, dy, partials, workgroups * u64::from(splits));
        let groups = workgroups_for(&conv2d_reduce::REDUCE_INPUT, elements);
        return in_two_stages(accumulate, conv2d_reduce::reduce_input(params, x, dx, partials, groups), elements, splits);
    }
    let kernel: Option<fn(_, _, _, _, _, _) -> Dispatch<Operand>> = match variant {
        Variant::SubgroupTextures8 => Some(conv2d_subgroup_textures_8::backward_input),
        Variant::SubgroupTextures16 => Some(conv2d_subgroup_textures_16::backward_input),
        _ => None,
    };
    if let Some(kernel) = kernel {
        let dispatch = kernel(params, x, dx, Operand::Texture(0), Operand::Texture(1), workgroups);
        return with_textures([(weight, node.inputs[1]), (dy, node.inputs[0])], dispatch.into());
    }
    let kernel: fn(_, _, _, _, _, _) -> Dispatch<Operand> = match variant {
        Variant::Lanes => conv2d_lanes::backward_input,
        Variant::LanesSmall => conv2d_lanes_small::backward_input,
        Variant::LanesNarrow | Variant::LanesNarrowSmall | Variant::SubgroupNarrow8 | Variant::SubgroupNarrow16 | Variant::LanesScalar => {
            conv2d_lanes_scalar::backward_input
        }
        Variant::Gemm128x128 => conv2d_gemm_128x128::backward_input,
        Variant::Gemm128x96 => conv2d_gemm_128x96::backward_input,
        Variant::Gemm64x64 => conv2d_gemm_64x64::backward_input,
        Variant::GemmNarrow | Variant::Tiled => conv2d_tiled::backward_input,
        Variant::Subgroup8 => conv2d_subgroup_8::backward_input,
        Variant::Subgroup16 => conv2d_subgroup_16::backward_input,
        Variant::SubgroupTextures8 | Variant::SubgroupTextures16 => unreachable!("they have other operands and are above"),
    };
    kernel(params, x, weight, dy, dx, workgroups).into()
}

pub(super) fn backward_weight(op: &Conv2dBackwardWeight, node: &Lowering<'_>) -> Lowered {
    let mut params = params(&op.window, node.inputs[0], node.inputs[1], false);
    let rows = params.kernel_h * params.kernel_w * params.in_c;
    let variant = Variant::choose(node.target, &params, &Results::Weights { rows, channels: params.out_c });
    let variant = variant.through_textures(node.target, op.macs(&node.inputs, &node.outputs), [node.inputs[0], node.inputs[1]]);
    let tiling = variant.tiling();
    let pixels = params.batch * params.out_h * params.out_w;
    // One more row than the filter has: the bias gradient.
    let elements = (rows as usize + 1) * params.out_c as usize;

    let tiles = rows.div_ceil(tiling.rows) * params.out_c.div_ceil(tiling.channels);
    let to_fill = (node.target.filling_workgroups * tiling.per_workgroup).div_ceil(tiles);
    // All tiles of a split read the same pixels of x and dy: those should stay in the cache.
    let to_cache = match node.target.class {
        DeviceClass::Cpu => {
            let bytes = u64::from(pixels) * u64::from(params.in_c * params.stride_h * params.stride_w + params.out_c) * 4;
            bytes.div_ceil(CACHE_BYTES).min(MOST_PARTIALS_BYTES / (elements as u64 * 4)) as u32
        }
        DeviceClass::Integrated | DeviceClass::Discrete => 1,
    };
    let wanted = to_fill.max(to_cache);
    let possible = pixels.div_ceil(MIN_PIXELS_PER_SPLIT);
    let by_memory = (node.target.max_binding_bytes / (elements as u64 * 4)).clamp(1, 1 << 16) as u32;
    params.per_split = pixels.div_ceil(wanted.min(possible).min(by_memory).max(1)).max(1);
    params.splits = pixels.div_ceil(params.per_split).max(1);

    let workgroups = (u64::from(tiles) * u64::from(params.splits)).div_ceil(tiling.per_workgroup.into());
    let (x, dy, partials) = (Operand::Input(0), Operand::Input(1), Operand::Scratch(0));
    let groups = workgroups_for(&conv2d_reduce::REDUCE_PARTIALS, elements);
    let reduce = conv2d_reduce::reduce_partials(params, Operand::Output(0), Operand::Output(1), partials, groups);
    let kernel: Option<fn(_, _, _, _, _) -> Dispatch<Operand>> = match variant {
        Variant::SubgroupTextures8 => Some(conv2d_subgroup_textures_8::backward_weight),
        Variant::SubgroupTextures16 => Some(conv2d_subgroup_textures_16::backward_weight),
        _ => None,
    };
    if let Some(kernel) = kernel {
        let accumulate = kernel(params, partials, Operand::Texture(0), Operand::Texture(1), workgroups);
        let lowered = in_two_stages(accumulate, reduce, elements, params.splits);
        return with_textures([(x, node.inputs[0]), (dy, node.inputs[1])], lowered);
    }
    let kernel: fn(_, _, _, _, _) -> Dispatch<Operand> = match variant {
        Variant::Lanes => conv2d_lanes::backward_weight,
        Variant::LanesSmall => conv2d_lanes_small::backward_weight,
        Variant::LanesNarrow => conv2d_lanes_narrow::backward_weight,
        Variant::LanesNarrowSmall => conv2d_lanes_narrow_small::backward_weight,
        Variant::LanesScalar => conv2d_lanes_scalar::backward_weight,
        Variant::SubgroupNarrow8 => conv2d_subgroup_narrow_8::backward_weight,
        Variant::SubgroupNarrow16 => conv2d_subgroup_narrow_16::backward_weight,
        Variant::Gemm128x128 => conv2d_gemm_128x128::backward_weight,
        Variant::Gemm128x96 => conv2d_gemm_128x96::backward_weight,
        Variant::Gemm64x64 => conv2d_gemm_64x64::backward_weight,
        Variant::GemmNarrow => conv2d_gemm_narrow::backward_weight,
        Variant::Tiled => conv2d_tiled::backward_weight,
        Variant::Subgroup8 => conv2d_subgroup_8::backward_weight,
        Variant::Subgroup16 => conv2d_subgroup_16::backward_weight,
        Variant::SubgroupTextures8 | Variant::SubgroupTextures16 => unreachable!("they have other operands and are above"),
    };
    in_two_stages(kernel(params, x, dy, partials, workgroups), reduce, elements, params.splits)
}
