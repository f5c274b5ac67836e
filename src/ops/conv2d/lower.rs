//! Which convolution kernel runs where, and with which constants, workgroups and scratch memory.

use super::choose::{CACHE_BYTES, Selected, Selector, Way};
use super::variant::{MatrixTile, Variant};
use super::{Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight, problem};
use crate::graph::{Lowered, Lowering, Op, Operand};
use crate::kernels::{
    Conv2dParams, DeviceClass, Dispatch, Kernel, Problem, conv2d_emulated_64x64, conv2d_emulated_128x96, conv2d_emulated_128x128,
    conv2d_gemm_64x64, conv2d_gemm_128x96, conv2d_gemm_128x128, conv2d_gemm_narrow, conv2d_lanes, conv2d_lanes_narrow,
    conv2d_lanes_narrow_small, conv2d_lanes_scalar, conv2d_lanes_small, conv2d_matrix_64x64, conv2d_matrix_128x96, conv2d_matrix_128x128,
    conv2d_reduce, conv2d_simdgroup_64x64, conv2d_subgroup_8, conv2d_subgroup_16, conv2d_subgroup_narrow_8, conv2d_subgroup_narrow_16,
    conv2d_subgroup_textures_8, conv2d_subgroup_textures_16, conv2d_tiled, texture_copy, workgroups_for,
};
use crate::shape::{Fact, Window, channels_in_memory};

/// [`Conv2dParams::relu`] of an input gradient that takes over the memory of the activation that masks it.
const MASK_IN_PLACE: u32 = 2;

/// The constants of a convolution of `x` to `y`.
pub(super) fn params(window: &Window, x: &Fact, y: &Fact, relu: bool) -> Conv2dParams {
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

/// From this many splits on, GPUs sum an element's partial results in several lanes: a lane alone would wait for one load
/// after the other. On CPU devices lanes wait for nothing, and barriers are dear.
const SPLITS_TO_SPREAD: u32 = 16;

/// Elements of a workgroup of `conv2d_reduce`'s `_spread` kernels (`ELEMENTS` there).
const SPREAD_ELEMENTS: usize = 32;

/// Whether the second stage of a reduction sums in several lanes, and its workgroups for so many elements.
fn second_stage(node: &Lowering<'_>, splits: u32, serial: &Kernel, elements: usize) -> (bool, u64) {
    let is_spread = node.target.class != DeviceClass::Cpu && splits >= SPLITS_TO_SPREAD;
    (is_spread, if is_spread { elements.div_ceil(SPREAD_ELEMENTS) as u64 } else { workgroups_for(serial, elements) })
}

/// The two dispatches of a split reduction whose result has `elements` words.
fn in_two_stages(accumulate: Dispatch<Operand>, reduce: Dispatch<Operand>, elements: usize, splits: u32) -> Lowered {
    Lowered { dispatches: vec![accumulate, reduce], scratch: vec![elements as u64 * u64::from(splits) * 4], ..Default::default() }
}

/// Bytes of the texture that holds a tensor: f32 in either precision.
pub(super) fn texture_bytes_of(fact: &Fact) -> u64 {
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

/// Words of the partial sums that a part of the weight gradient adds up: one row more than the filter has, for the bias.
pub(super) fn weight_words(params: &Conv2dParams) -> usize {
    (params.kernel_h * params.kernel_w * params.in_c + 1) as usize * params.out_c as usize
}

/// Selects kernels for `op` and notes in the constants what of it they read.
fn select(op: &dyn Op, node: &Lowering<'_>, params: &mut Conv2dParams, way: Way, words: usize, key: impl FnOnce() -> Problem) -> Selected {
    let macs = op.macs(&node.inputs, &node.outputs);
    let operand_bytes = [texture_bytes_of(node.inputs[0]), texture_bytes_of(node.inputs[1])];
    let element = node.inputs[0].element;
    let selected = Selector { target: node.target, params: *params, way, words: words as u64, macs, element, operand_bytes }.select(key);
    params.channels_innermost = selected.channels_innermost.into();
    if selected.splits > 1 || way == Way::BackwardWeight {
        (params.splits, params.per_split) = (selected.splits, selected.per_split);
    }
    selected
}

pub(super) fn forward(op: &Conv2d, node: &Lowering<'_>) -> Lowered {
    let (x, y) = (node.inputs[0], node.outputs[0]);
    let mut params = params(&op.window, x, y, op.relu);
    let elements = y.words();
    let Selected { variant, splits, .. } =
        select(op, node, &mut params, Way::Forward, elements, || problem::problem(op.name(), &op.window, x, y));
    let workgroups = variant.workgroups(params.batch * params.out_h * params.out_w, params.out_c);
    let (x, weight, bias, y) = (Operand::Input(0), Operand::Input(1), Operand::Input(2), Operand::Output(0));
    if splits > 1 {
        let partials = Operand::Scratch(0);
        let accumulate = conv2d_gemm_64x64::forward_partials(params, x, weight, partials, workgroups * u64::from(splits));
        let (is_spread, groups) = second_stage(node, splits, &conv2d_reduce::REDUCE_FORWARD, elements);
        let reduce = if is_spread { conv2d_reduce::reduce_forward_spread } else { conv2d_reduce::reduce_forward };
        return in_two_stages(accumulate, reduce(params, bias, y, partials, groups), elements, splits);
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
        Variant::Subgroup8 => conv2d_subgroup_8::forward,
        Variant::Subgroup16 => conv2d_subgroup_16::forward,
        Variant::SubgroupTextures8 | Variant::SubgroupTextures16 => unreachable!("they have other operands and are above"),
        Variant::SubgroupNarrow8 => conv2d_subgroup_narrow_8::forward,
        Variant::SubgroupNarrow16 => conv2d_subgroup_narrow_16::forward,
        Variant::Gemm128x128 => conv2d_gemm_128x128::forward,
        Variant::Gemm128x96 => conv2d_gemm_128x96::forward,
        Variant::Gemm64x64 => conv2d_gemm_64x64::forward,
        Variant::GemmNarrow => conv2d_gemm_narrow::forward,
        Variant::Tiled => conv2d_tiled::forward,
        Variant::Matrix(MatrixTile::T64x64) => conv2d_matrix_64x64::forward,
        Variant::Matrix(MatrixTile::T128x96) => conv2d_matrix_128x96::forward,
        Variant::Matrix(MatrixTile::T128x128) => conv2d_matrix_128x128::forward,
        Variant::Simdgroup64x64 => conv2d_simdgroup_64x64::forward,
        Variant::Emulated(MatrixTile::T64x64) => conv2d_emulated_64x64::forward,
        Variant::Emulated(MatrixTile::T128x96) => conv2d_emulated_128x96::forward,
        Variant::Emulated(MatrixTile::T128x128) => conv2d_emulated_128x128::forward,
    };
    kernel(params, x, weight, bias, y, workgroups).into()
}

pub(super) fn backward_input(op: &Conv2dBackwardInput, node: &Lowering<'_>) -> Lowered {
    let (x, y) = (node.outputs[0], node.inputs[0]);
    let mut params = params(&op.window, x, y, op.mask);
    if node.in_place {
        params.relu = MASK_IN_PLACE;
    }
    let elements = x.words();
    let Selected { variant, splits, .. } =
        select(op, node, &mut params, Way::BackwardInput, elements, || problem::problem(op.name(), &op.window, x, y));
    let workgroups = variant.workgroups(params.batch * params.in_h * params.in_w, params.in_c);
    let (dy, weight, dx) = (Operand::Input(0), Operand::Input(1), Operand::Output(0));
    // Without a mask, or with one in dx, the kernel does not read x: dy stands in for it.
    let x = if op.mask && !node.in_place { Operand::Input(2) } else { dy };
    if splits > 1 {
        let partials = Operand::Scratch(0);
        let accumulate = conv2d_gemm_64x64::backward_input_partials(params, weight, dy, partials, workgroups * u64::from(splits));
        let (is_spread, groups) = second_stage(node, splits, &conv2d_reduce::REDUCE_INPUT, elements);
        let reduce = if is_spread { conv2d_reduce::reduce_input_spread } else { conv2d_reduce::reduce_input };
        return in_two_stages(accumulate, reduce(params, x, dx, partials, groups), elements, splits);
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
        Variant::Subgroup8 => conv2d_subgroup_8::backward_input,
        Variant::Subgroup16 => conv2d_subgroup_16::backward_input,
        Variant::SubgroupTextures8 | Variant::SubgroupTextures16 => unreachable!("they have other operands and are above"),
        Variant::Gemm128x128 => conv2d_gemm_128x128::backward_input,
        Variant::Gemm128x96 => conv2d_gemm_128x96::backward_input,
        Variant::Gemm64x64 => conv2d_gemm_64x64::backward_input,
        Variant::GemmNarrow | Variant::Tiled => conv2d_tiled::backward_input,
        Variant::Matrix(MatrixTile::T64x64) => conv2d_matrix_64x64::backward_input,
        Variant::Matrix(MatrixTile::T128x96) => conv2d_matrix_128x96::backward_input,
        Variant::Matrix(MatrixTile::T128x128) => conv2d_matrix_128x128::backward_input,
        Variant::Simdgroup64x64 => conv2d_simdgroup_64x64::backward_input,
        Variant::Emulated(MatrixTile::T64x64) => conv2d_emulated_64x64::backward_input,
        Variant::Emulated(MatrixTile::T128x96) => conv2d_emulated_128x96::backward_input,
        Variant::Emulated(MatrixTile::T128x128) => conv2d_emulated_128x128::backward_input,
    };
    kernel(params, x, weight, dy, dx, workgroups).into()
}

pub(super) fn backward_weight(op: &Conv2dBackwardWeight, node: &Lowering<'_>) -> Lowered {
    let (x, y) = (node.inputs[0], node.inputs[1]);
    let mut params = params(&op.window, x, y, false);
    let elements = weight_words(&params);
    let selected = select(op, node, &mut params, Way::BackwardWeight, elements, || problem::problem(op.name(), &op.window, x, y));
    let variant = selected.variant;
    let tiling = variant.tiling();
    let rows = params.kernel_h * params.kernel_w * params.in_c;
    let tiles = rows.div_ceil(tiling.rows) * params.out_c.div_ceil(tiling.channels);
    let workgroups = (u64::from(tiles) * u64::from(params.splits)).div_ceil(tiling.per_workgroup.into());
    let (x, dy, partials) = (Operand::Input(0), Operand::Input(1), Operand::Scratch(0));
    let (is_spread, groups) = second_stage(node, params.splits, &conv2d_reduce::REDUCE_PARTIALS, elements);
    let reduce = if is_spread { conv2d_reduce::reduce_partials_spread } else { conv2d_reduce::reduce_partials };
    let reduce = reduce(params, Operand::Output(0), Operand::Output(1), partials, groups);
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
        Variant::Subgroup8 => conv2d_subgroup_8::backward_weight,
        Variant::Subgroup16 => conv2d_subgroup_16::backward_weight,
        Variant::SubgroupTextures8 | Variant::SubgroupTextures16 => unreachable!("they have other operands and are above"),
        Variant::SubgroupNarrow8 => conv2d_subgroup_narrow_8::backward_weight,
        Variant::SubgroupNarrow16 => conv2d_subgroup_narrow_16::backward_weight,
        Variant::Gemm128x128 => conv2d_gemm_128x128::backward_weight,
        Variant::Gemm128x96 => conv2d_gemm_128x96::backward_weight,
        Variant::Gemm64x64 => conv2d_gemm_64x64::backward_weight,
        Variant::GemmNarrow => conv2d_gemm_narrow::backward_weight,
        Variant::Tiled => conv2d_tiled::backward_weight,
        Variant::Matrix(MatrixTile::T64x64) => conv2d_matrix_64x64::backward_weight,
        Variant::Matrix(MatrixTile::T128x96) => conv2d_matrix_128x96::backward_weight,
        Variant::Matrix(MatrixTile::T128x128) => conv2d_matrix_128x128::backward_weight,
        Variant::Simdgroup64x64 => conv2d_simdgroup_64x64::backward_weight,
        Variant::Emulated(MatrixTile::T64x64) => conv2d_emulated_64x64::backward_weight,
        Variant::Emulated(MatrixTile::T128x96) => conv2d_emulated_128x96::backward_weight,
        Variant::Emulated(MatrixTile::T128x128) => conv2d_emulated_128x128::backward_weight,
    };
    in_two_stages(kernel(params, x, dy, partials, workgroups), reduce, elements, params.splits)
}
