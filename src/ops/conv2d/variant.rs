//! The kernels there are for a convolution, and the rules that choose one where nothing was measured.

use crate::kernels::{Conv2dParams, DeviceClass, MatrixUnits, Target};
use crate::shape::Element;

/// Which of the shader files computes a convolution. All have the same entry points and bindings, and results that
/// differ by rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
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
    /// `conv2d_subgroup_8`: as `Lanes`, where subgroups are 8 lanes wide and there are integers of 64 bits.
    Subgroup8,
    /// `conv2d_subgroup_16`: as `Subgroup8`, where subgroups are 16 lanes wide.
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
    /// `conv2d_matrix_*`: matrix units for 16 x 16, f16, channels in memory multiples of 4 on both sides.
    Matrix(MatrixTile),
    /// `conv2d_simdgroup_64x64`: matrix units for 8 x 8, channels in memory multiples of 4 on both sides.
    Simdgroup64x64,
    /// `conv2d_emulated_*`: `Matrix` in ordinary arithmetic.
    Emulated(MatrixTile),
}

/// Results of a workgroup whose subgroups multiply matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatrixTile {
    /// 64 x 64.
    T64x64,
    /// 128 x 96.
    T128x96,
    /// 128 x 128.
    T128x128,
}

/// Results of a workgroup.
pub(super) struct Tiling {
    /// Pixels of a forward or input-gradient tile.
    pub pixels: u32,
    /// Channels of a forward or input-gradient tile; output channels of a weight-gradient tile.
    pub channels: u32,
    /// Rows (ky, kx, c) of a weight-gradient tile.
    pub rows: u32,
    /// Tiles in one workgroup.
    pub per_workgroup: u32,
}

/// What a direction computes, as a matrix: `rows` by `channels` results.
pub(super) enum Results {
    /// Rows are pixels.
    Pixels { rows: u32, channels: u32 },
    /// Rows are those of the weight: (ky, kx, c).
    Weights { rows: u32, channels: u32 },
}

/// Tiles of subgroups are good where at least this share of a tile is used, and where a longer reduction than [`SHORT_REDUCTION`]
/// makes up for it, down to [`LEAST_USE`].
const GOOD_USE: f64 = 0.5;
const LEAST_USE: f64 = 0.25;

/// Steps of a reduction up to which storing the results takes as long as summing them.
const SHORT_REDUCTION: u32 = 128;

/// Whether compiling large kernels would take longer than all the work there is.
pub(super) fn is_little(target: &Target, params: &Conv2dParams) -> bool {
    let sums = u64::from(params.batch * params.out_h * params.out_w) * u64::from(params.out_c);
    sums * u64::from(params.kernel_h * params.kernel_w * params.in_c) < target.little_work
}

impl Variant {
    /// Every one.
    const ALL: [Variant; 23] = [
        Self::Lanes,
        Self::LanesSmall,
        Self::LanesNarrow,
        Self::LanesNarrowSmall,
        Self::LanesScalar,
        Self::Subgroup8,
        Self::Subgroup16,
        Self::SubgroupTextures8,
        Self::SubgroupTextures16,
        Self::SubgroupNarrow8,
        Self::SubgroupNarrow16,
        Self::Gemm128x128,
        Self::Gemm128x96,
        Self::Gemm64x64,
        Self::GemmNarrow,
        Self::Tiled,
        Self::Matrix(MatrixTile::T64x64),
        Self::Matrix(MatrixTile::T128x96),
        Self::Matrix(MatrixTile::T128x128),
        Self::Simdgroup64x64,
        Self::Emulated(MatrixTile::T64x64),
        Self::Emulated(MatrixTile::T128x96),
        Self::Emulated(MatrixTile::T128x128),
    ];

    /// The shader's name behind `conv2d_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lanes => "lanes",
            Self::LanesSmall => "lanes_small",
            Self::LanesNarrow => "lanes_narrow",
            Self::LanesNarrowSmall => "lanes_narrow_small",
            Self::LanesScalar => "lanes_scalar",
            Self::Subgroup8 => "subgroup_8",
            Self::Subgroup16 => "subgroup_16",
            Self::SubgroupTextures8 => "subgroup_textures_8",
            Self::SubgroupTextures16 => "subgroup_textures_16",
            Self::SubgroupNarrow8 => "subgroup_narrow_8",
            Self::SubgroupNarrow16 => "subgroup_narrow_16",
            Self::Gemm128x128 => "gemm_128x128",
            Self::Gemm128x96 => "gemm_128x96",
            Self::Gemm64x64 => "gemm_64x64",
            Self::GemmNarrow => "gemm_narrow",
            Self::Tiled => "tiled",
            Self::Matrix(MatrixTile::T64x64) => "matrix_64x64",
            Self::Matrix(MatrixTile::T128x96) => "matrix_128x96",
            Self::Matrix(MatrixTile::T128x128) => "matrix_128x128",
            Self::Simdgroup64x64 => "simdgroup_64x64",
            Self::Emulated(MatrixTile::T64x64) => "emulated_64x64",
            Self::Emulated(MatrixTile::T128x96) => "emulated_128x96",
            Self::Emulated(MatrixTile::T128x128) => "emulated_128x128",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }

    /// Those that multiply on the device's matrix units, for whole quads of channels: what rules choose in half precision. In f32
    /// there are kernels for 8 x 8 only, where the driver lists such matrices; a candidate, which has to prove itself.
    fn on_matrix_units(target: &Target, params: &Conv2dParams, element: Element) -> Vec<Self> {
        const TILES: [MatrixTile; 3] = [MatrixTile::T128x128, MatrixTile::T128x96, MatrixTile::T64x64];
        if !params.in_c.is_multiple_of(4) || !params.out_c.is_multiple_of(4) {
            return Vec::new();
        }
        match (target.matrix_units, element) {
            (MatrixUnits::None, _) | (MatrixUnits::Sixteen, Element::F32) => Vec::new(),
            (MatrixUnits::Sixteen, Element::F16) => TILES.map(Self::Matrix).into(),
            (MatrixUnits::Eight, Element::F32) if !target.matrix_units_take_f32 => Vec::new(),
            (MatrixUnits::Eight, _) => vec![Self::Simdgroup64x64],
            (MatrixUnits::Emulated, Element::F16) => TILES.map(Self::Emulated).into(),
            (MatrixUnits::Emulated, Element::F32) => vec![Self::Emulated(MatrixTile::T64x64)],
        }
    }

    /// Those that compute forward and the weight gradient on a device, for such channels. Where a driver cannot compile
    /// large kernels, the small ones.
    pub fn possible(target: &Target, params: &Conv2dParams, element: Element) -> Vec<Self> {
        let only_small = target.little_work == u64::MAX;
        let has_subgroups_of = |lanes| target.subgroup == Some(lanes) && !only_small;
        let (eight, sixteen) = (has_subgroups_of(8), has_subgroups_of(16));
        let pairs = target.int64;
        let candidates: &[(Self, bool)] = match (target.class, params.in_c.is_multiple_of(4), params.out_c.is_multiple_of(4)) {
            (DeviceClass::Integrated | DeviceClass::Discrete, true, true) => {
                &[(Self::Gemm64x64, true), (Self::Gemm128x128, true), (Self::Gemm128x96, true), (Self::Tiled, true)]
            }
            (DeviceClass::Integrated | DeviceClass::Discrete, false, true) => &[(Self::GemmNarrow, true), (Self::Tiled, true)],
            (DeviceClass::Integrated | DeviceClass::Discrete, _, false) => &[(Self::Tiled, true)],
            (DeviceClass::Cpu, true, true) => &[
                (Self::Subgroup8, eight && pairs),
                (Self::Subgroup16, sixteen && pairs),
                (Self::SubgroupTextures8, eight),
                (Self::SubgroupTextures16, sixteen),
                (Self::Lanes, !only_small),
                (Self::LanesSmall, true),
                (Self::LanesScalar, true),
            ],
            (DeviceClass::Cpu, false, true) => &[
                (Self::SubgroupNarrow8, eight),
                (Self::SubgroupNarrow16, sixteen),
                (Self::LanesNarrow, !only_small),
                (Self::LanesNarrowSmall, true),
                (Self::LanesScalar, true),
            ],
            (DeviceClass::Cpu, _, false) => &[(Self::LanesScalar, true)],
        };
        let others = candidates.iter().filter(|(_, is_possible)| *is_possible).map(|(variant, _)| *variant);
        Self::on_matrix_units(target, params, element).into_iter().chain(others).collect()
    }

    /// Whether it is there for what the others cannot do, or do not do in time, and hardly ever the fastest of several.
    pub fn is_stopgap(self) -> bool {
        matches!(self, Self::LanesSmall | Self::LanesNarrowSmall | Self::LanesScalar | Self::Tiled)
    }

    /// Whether its kernels of forward and of the input gradient take tiles in either order.
    pub fn has_orders(self) -> bool {
        matches!(
            self,
            Self::Subgroup8
                | Self::Subgroup16
                | Self::SubgroupTextures8
                | Self::SubgroupTextures16
                | Self::SubgroupNarrow8
                | Self::SubgroupNarrow16
        )
    }

    /// The variant that brings this one's operands into textures first, and the loads of one of this one's lanes for 1024
    /// multiply-adds; `None` where there is no such variant.
    pub fn through_textures(self) -> Option<(Self, u64)> {
        match self {
            Self::Subgroup8 => Some((Self::SubgroupTextures8, 12)),
            Self::Subgroup16 => Some((Self::SubgroupTextures16, 8)),
            _ => None,
        }
    }

    /// Whether it reads its operands from textures.
    pub fn reads_textures(self) -> bool {
        matches!(self, Self::SubgroupTextures8 | Self::SubgroupTextures16)
    }

    /// The variant whose input gradient stands in for this one's: narrow layers come first and rarely need that
    /// gradient, so they have no kernel of their own for it.
    pub fn for_backward_input(self) -> Self {
        match self {
            Self::LanesNarrow | Self::LanesNarrowSmall | Self::SubgroupNarrow8 | Self::SubgroupNarrow16 => Self::LanesScalar,
            Self::GemmNarrow => Self::Tiled,
            other => other,
        }
    }

    /// CPU devices run barriers and workgroup memory badly, so they get the lanes; `vec4` loads need whole quads. Small
    /// tiles where compiling large ones would take longer than computing; tiles of subgroups are the largest. What those are not
    /// good for gets the small ones, too, where the driver compiles slowly, but for the weight gradient. `steps` is the length of the
    /// reduction.
    pub fn choose(target: &Target, params: &Conv2dParams, element: Element, results: &Results, steps: u32) -> Self {
        let on_matrix_units = if element == Element::F16 { Self::on_matrix_units(target, params, element) } else { Vec::new() };
        if let Some(variant) = Self::of_tiles(&on_matrix_units, target, results) {
            return variant;
        }
        let is_little = is_little(target, params);
        let is_weights = matches!(results, Results::Weights { .. });
        let subgroups = |eight: Self, sixteen: Self, small: Self, large: Self| {
            let variant = match target.subgroup {
                Some(8) if target.int64 => eight,
                Some(16) if target.int64 => sixteen,
                _ => return large,
            };
            let used = variant.use_of_tiles(results);
            let least = if is_weights || steps <= SHORT_REDUCTION { GOOD_USE } else { LEAST_USE };
            if used >= least {
                variant
            } else if is_weights || !target.compiles_slowly {
                large
            } else {
                small
            }
        };
        match (target.class, params.in_c.is_multiple_of(4), params.out_c.is_multiple_of(4)) {
            (DeviceClass::Integrated, true, true) => Self::Gemm64x64,
            (DeviceClass::Discrete, true, true) => {
                let tiles = [Self::Gemm128x128, Self::Gemm128x96, Self::Gemm64x64];
                Self::of_tiles(&tiles, target, results).unwrap_or(Self::Gemm64x64)
            }
            (DeviceClass::Integrated | DeviceClass::Discrete, false, true) => Self::GemmNarrow,
            (DeviceClass::Integrated | DeviceClass::Discrete, _, false) => Self::Tiled,
            (DeviceClass::Cpu, true, true) if is_little => Self::LanesSmall,
            (DeviceClass::Cpu, true, true) => subgroups(Self::Subgroup8, Self::Subgroup16, Self::LanesSmall, Self::Lanes),
            (DeviceClass::Cpu, false, true) if is_little => Self::LanesNarrowSmall,
            (DeviceClass::Cpu, false, true) => {
                subgroups(Self::SubgroupNarrow8, Self::SubgroupNarrow16, Self::LanesNarrowSmall, Self::LanesNarrow)
            }
            (DeviceClass::Cpu, _, false) => Self::LanesScalar,
        }
    }

    /// Of variants that differ in their tiles, the smallest last: of the large ones that whose tiles are used best, unless they
    /// are too few to fill the device. `None` where there is none.
    fn of_tiles(variants: &[Self], target: &Target, results: &Results) -> Option<Self> {
        let (small, larger) = variants.split_last()?;
        let better = |best: Self, other: &Self| if other.use_of_tiles(results) > best.use_of_tiles(results) { *other } else { best };
        let large = larger.iter().copied().reduce(|best, other| better(best, &other)).unwrap_or(*small);
        Some(match results {
            Results::Pixels { rows, channels } if large.workgroups(*rows, *channels) < target.filling_workgroups.into() => *small,
            // Splits of the reduction fill the device, but a tile that is mostly padding is wasted work.
            Results::Weights { .. } if large.use_of_tiles(results) < 0.5 * small.use_of_tiles(results) => *small,
            _ => large,
        })
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

    pub fn tiling(self) -> Tiling {
        match self {
            Self::LanesSmall | Self::LanesNarrowSmall => Tiling { pixels: 4, channels: 8, rows: 4, per_workgroup: 16 },
            Self::Lanes | Self::LanesNarrow => Tiling { pixels: 8, channels: 16, rows: 8, per_workgroup: 16 },
            Self::LanesScalar => Tiling { pixels: 4, channels: 4, rows: 4, per_workgroup: 16 },
            Self::Subgroup8 | Self::SubgroupTextures8 | Self::SubgroupNarrow8 => {
                Tiling { pixels: 64, channels: 32, rows: 64, per_workgroup: 1 }
            }
            Self::Subgroup16 | Self::SubgroupTextures16 | Self::SubgroupNarrow16 => {
                Tiling { pixels: 64, channels: 64, rows: 64, per_workgroup: 1 }
            }
            Self::Gemm128x128 | Self::Matrix(MatrixTile::T128x128) | Self::Emulated(MatrixTile::T128x128) => {
                Tiling { pixels: 128, channels: 128, rows: 128, per_workgroup: 1 }
            }
            Self::Gemm128x96 | Self::GemmNarrow | Self::Matrix(MatrixTile::T128x96) | Self::Emulated(MatrixTile::T128x96) => {
                Tiling { pixels: 128, channels: 96, rows: 128, per_workgroup: 1 }
            }
            Self::Gemm64x64
            | Self::Tiled
            | Self::Matrix(MatrixTile::T64x64)
            | Self::Simdgroup64x64
            | Self::Emulated(MatrixTile::T64x64) => Tiling { pixels: 64, channels: 64, rows: 64, per_workgroup: 1 },
        }
    }

    /// Workgroups for `pixels` by `channels` results.
    pub fn workgroups(self, pixels: u32, channels: u32) -> u64 {
        let tiling = self.tiling();
        let tiles = u64::from(pixels.div_ceil(tiling.pixels)) * u64::from(channels.div_ceil(tiling.channels));
        tiles.div_ceil(tiling.per_workgroup.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(in_c: u32) -> Conv2dParams {
        Conv2dParams {
            batch: 8,
            in_h: 26,
            in_w: 26,
            in_c,
            out_h: 26,
            out_w: 26,
            out_c: 256,
            kernel_h: 5,
            kernel_w: 5,
            ..Conv2dParams::default()
        }
    }

    fn has_simdgroup(target: &Target, in_c: u32, element: Element) -> bool {
        Variant::possible(target, &params(in_c), element).contains(&Variant::Simdgroup64x64)
    }

    /// The kernel in f32 asks a driver for matrices of f32: undefined where it lists f16 only.
    #[test]
    fn tiles_in_f32_are_candidates_only_where_units_take_f32() {
        for class in [DeviceClass::Cpu, DeviceClass::Integrated, DeviceClass::Discrete] {
            let eight = Target { matrix_units: MatrixUnits::Eight, ..Target::baseline(class) };
            let with_f32 = Target { matrix_units_take_f32: true, ..eight.clone() };
            assert!(has_simdgroup(&eight, 96, Element::F16) && has_simdgroup(&with_f32, 96, Element::F16), "{class:?}");
            assert!(!has_simdgroup(&eight, 96, Element::F32), "{class:?}: a driver that lists f16 only");
            assert!(has_simdgroup(&with_f32, 96, Element::F32), "{class:?}: a driver that lists f32, too");
            assert!(!has_simdgroup(&with_f32, 3, Element::F32) && !has_simdgroup(&with_f32, 3, Element::F16), "{class:?}: no whole quads");
        }
    }

    /// As few kernels as serve, because each is compiled before the first step; large tiles only where they are used.
    #[test]
    fn subgroups_compute_what_fills_their_tiles() {
        let of = |lanes, results, steps| {
            let target = Target { subgroup: lanes, compiles_slowly: true, ..Target::baseline(DeviceClass::Cpu) };
            Variant::choose(&target, &params(96), Element::F32, &results, steps)
        };
        let pixels = |channels| Results::Pixels { rows: 6400, channels };
        assert_eq!(of(Some(8), pixels(16), 2), Variant::Subgroup8, "half of a tile");
        assert_eq!(of(Some(8), pixels(8), SHORT_REDUCTION), Variant::LanesSmall, "a quarter, and little to sum");
        assert_eq!(of(Some(8), pixels(8), SHORT_REDUCTION + 1), Variant::Subgroup8, "a quarter, and much to sum");
        assert_eq!(of(Some(16), pixels(12), 2400), Variant::LanesSmall, "less than a quarter");
        assert_eq!(of(None, pixels(256), 2400), Variant::Lanes, "no subgroups");
        let fast = Target { subgroup: Some(16), ..Target::baseline(DeviceClass::Cpu) };
        assert_eq!(Variant::choose(&fast, &params(96), Element::F32, &pixels(12), 2400), Variant::Lanes, "a driver that compiles fast");
        let without_pairs = Target { subgroup: Some(8), int64: false, ..Target::baseline(DeviceClass::Cpu) };
        let chosen = Variant::choose(&without_pairs, &params(96), Element::F32, &pixels(256), 2400);
        assert_eq!(chosen, Variant::Lanes, "no integers of 64 bits");
        let weights = |rows| Results::Weights { rows, channels: 64 };
        assert_eq!(of(Some(16), weights(64), 1 << 20), Variant::Subgroup16);
        assert_eq!(of(Some(16), weights(16), 1 << 20), Variant::Lanes);
    }

    #[test]
    fn units_that_are_not_there_offer_nothing() {
        for units in [MatrixUnits::None, MatrixUnits::Sixteen] {
            let target = Target { matrix_units: units, matrix_units_take_f32: true, ..Target::baseline(DeviceClass::Discrete) };
            let on_units = Variant::on_matrix_units(&target, &params(96), Element::F32);
            assert!(on_units.is_empty(), "{units:?}: {on_units:?}");
        }
    }
}
