//! The kernel table generated from `shaders/`, and the plain-data dispatch that names a kernel and its operands.

mod choices;
#[allow(dead_code, reason = "the build script reads more of it")]
pub(crate) mod reflect;

pub use choices::{Choice, Choices, Problem};

use crate::shape::Element;
use std::fmt;
use std::sync::Arc;

/// One entry point of one shader, as reflected by the build script.
pub struct Kernel {
    /// Name of the shader file, with `_f16` behind it for its twin in half precision.
    pub module: &'static str,
    /// Name of the entry point.
    pub entry: &'static str,
    /// Expanded WGSL.
    pub source: &'static str,
    /// Invocations of a workgroup.
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Whether its workgroups find their number through `shaders/shared/grid.wgsl`, so that a dispatch may run in parts.
    pub divisible: bool,
    /// Whether its shader uses operations on subgroups: only for targets with [`Target::subgroup`].
    pub subgroups: bool,
    /// Whether its shader uses integers of 64 bits: only for targets with [`Target::int64`].
    pub int64: bool,
    /// Whether its shader uses f16: only for targets with [`Target::f16`].
    pub f16: bool,
    /// Whether its shader uses matrix units: only for targets with [`MatrixUnits::Sixteen`] or [`MatrixUnits::Eight`].
    pub matrices: bool,
    /// The same kernel with activations and filters stored in half precision; absent where it has none of them.
    pub half: Option<&'static Kernel>,
    /// What the entry point uses, by binding index.
    pub bindings: &'static [Binding],
}

/// A resource of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `@binding(..)` in group 0.
    pub index: u32,
    /// Name of the variable.
    pub name: &'static str,
    /// How it is bound.
    pub kind: BindingKind,
    /// How its numbers are stored; [`Element::F32`] for everything of four bytes.
    pub element: Element,
}

/// How a resource is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// Constants of the dispatch, a uniform.
    Params,
    /// Values of the step, a uniform with a dynamic offset.
    Step,
    /// Storage, read only.
    Read,
    /// Storage, written.
    ReadWrite,
    /// A texture of `rgba32float`, read.
    Texture,
    /// A texture of `rgba32float`, written.
    TextureWrite,
}

impl Kernel {
    /// `shader::entry`, for labels and dumps.
    pub fn name(&self) -> String {
        format!("{}::{}", self.module, self.entry)
    }

    /// The bindings that are not uniforms, in the order of [`Dispatch::buffers`].
    pub fn storage(&self) -> impl Iterator<Item = &'static Binding> {
        self.bindings.iter().filter(|b| !matches!(b.kind, BindingKind::Params | BindingKind::Step))
    }

    /// This kernel or its twin, whichever takes operands that are stored as `elements`, in the order of
    /// [`Kernel::storage`].
    pub fn for_elements(&'static self, elements: &[Element]) -> Option<&'static Kernel> {
        let fits = |kernel: &Kernel| kernel.storage().map(|binding| binding.element).eq(elements.iter().copied());
        [Some(self), self.half].into_iter().flatten().find(|kernel| fits(kernel))
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// A kernel with its constants and operands; `B` says what an operand is at the stage at hand.
#[derive(Clone, Debug)]
pub struct Dispatch<B> {
    /// What runs.
    pub kernel: &'static Kernel,
    /// The bytes of its `Params`; empty where it has none.
    pub params: Vec<u8>,
    /// Operands in the order of [`Kernel::storage`].
    pub buffers: Vec<B>,
    /// Workgroups in all; the executor folds them over the dispatch dimensions (`shaders/shared/grid.wgsl`).
    pub workgroups: u64,
}

impl<B> Dispatch<B> {
    /// The same dispatch with every operand replaced.
    pub fn map<C>(&self, mut operand: impl FnMut(&B) -> C) -> Dispatch<C> {
        Dispatch {
            kernel: self.kernel,
            params: self.params.clone(),
            buffers: self.buffers.iter().map(&mut operand).collect(),
            workgroups: self.workgroups,
        }
    }
}

/// What the choice of a kernel variant depends on: plain facts about an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Which family of kernels suits the device.
    pub class: DeviceClass,
    /// Multiply-adds below which kernels that compile fast beat kernels that run fast; all of them where a driver
    /// cannot compile large kernels.
    pub little_work: u64,
    /// Whether the driver takes seconds for what others compile in one: small tiles where large ones gain little.
    pub compiles_slowly: bool,
    /// Lanes of a subgroup, where the device has subgroups and all are of one size.
    pub subgroup: Option<u32>,
    /// Whether kernels may use integers of 64 bits.
    pub int64: bool,
    /// Whether kernels may use f16.
    pub f16: bool,
    /// What multiplies matrices of f16, in mixed precision.
    pub matrix_units: MatrixUnits,
    /// Whether the driver lists matrices of f32 for them, too; without units, and emulated, it says nothing.
    pub matrix_units_take_f32: bool,
    /// Workgroups that keep every core or compute unit busy.
    pub filling_workgroups: u32,
    /// Cores or compute units of a GPU, which run about as many workgroups at once or a small multiple; where the driver
    /// tells.
    pub cores: Option<u32>,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Kernels that can read from textures do so where they load every value at least this often: bringing it there
    /// costs as much as that many loads save.
    pub texture_reuse: u64,
    /// Largest texture of `rgba32float` that is [`TEXTURE_WIDTH`] wide, in bytes.
    pub max_texture_bytes: u64,
    /// Most bytes of all buffers together, where that is limited.
    pub memory_budget: Option<u64>,
    /// Alignment of a binding's offset in bytes.
    pub offset_alignment: u64,
    /// Choices that were measured on the device; where there is none, or one that does not apply, rules choose.
    pub choices: Arc<Choices>,
}

/// [`Target::texture_reuse`] as measured on llvmpipe.
pub const TEXTURE_REUSE: u64 = 4;

/// Width in texels of the textures that hold tensors (`shaders/shared/texels.wgsl`).
pub const TEXTURE_WIDTH: u64 = 4096;

/// Bytes of a texture of `rows` rows.
pub fn texture_bytes(rows: u64) -> u64 {
    rows * TEXTURE_WIDTH * 16
}

/// [`Target::little_work`] where nothing else is asked for: on two cores of llvmpipe, large convolution tiles take a
/// second to compile, in which small ones do this much.
pub const LITTLE_WORK: u64 = 32 << 20;

/// Families of devices that want different kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceClass {
    /// A CPU that runs shaders (llvmpipe, SwiftShader, WARP): one invocation is a SIMD lane, barriers are dear.
    Cpu,
    /// A GPU that shares the CPU's memory, and any that does not say what it is: small tiles in workgroup memory.
    Integrated,
    /// A GPU with its own memory: large tiles in workgroup memory, and work for many cores at once.
    Discrete,
}

/// Units that multiply small matrices of f16 and sum in f32, which a subgroup of 32 invocations shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MatrixUnits {
    /// None, or none that kernels may use.
    #[default]
    None,
    /// For matrices of 16 x 16: NVIDIA's and, where all subgroups have 32 invocations, others'.
    Sixteen,
    /// For matrices of 8 x 8: Apple's.
    Eight,
    /// None, but the kernels of [`MatrixUnits::Sixteen`] run in ordinary arithmetic: for proving them.
    Emulated,
}

impl DeviceClass {
    /// [`Target::filling_workgroups`] of a large device of the class: not all adapters say how many cores they have.
    pub fn filling_workgroups(self) -> u32 {
        match self {
            DeviceClass::Cpu => 32,
            DeviceClass::Integrated => 64,
            DeviceClass::Discrete => 256,
        }
    }
}

impl Target {
    /// The limits every WebGPU adapter has, for the device class; what goldens and `dump` without an adapter use.
    pub fn baseline(class: DeviceClass) -> Self {
        Target {
            class,
            little_work: LITTLE_WORK,
            compiles_slowly: false,
            subgroup: None,
            int64: true,
            f16: true,
            matrix_units: MatrixUnits::None,
            matrix_units_take_f32: false,
            filling_workgroups: class.filling_workgroups(),
            cores: None,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            texture_reuse: TEXTURE_REUSE,
            max_texture_bytes: texture_bytes(8192),
            memory_budget: None,
            offset_alignment: 256,
            choices: Arc::default(),
        }
    }

    /// For programs that run `runs` times: the oftener they run, the less work pays for compiling large kernels, where
    /// the driver can.
    pub fn for_runs(&self, runs: usize) -> Target {
        let little_work = if self.little_work == u64::MAX { u64::MAX } else { self.little_work / runs.max(1) as u64 };
        Target { little_work, ..self.clone() }
    }

    /// Targets that differ from this one in what decides between kernels of its class: together they get every kernel
    /// that the device may be given.
    pub fn with_every_choice(&self) -> Vec<Target> {
        let base = Target { choices: Arc::default(), ..self.clone() };
        let on_units = (base.matrix_units != MatrixUnits::None).then(|| base.clone());
        let base = Target { matrix_units: MatrixUnits::None, ..base };
        let little = Target { little_work: u64::MAX, ..base.clone() };
        match self.class {
            DeviceClass::Integrated | DeviceClass::Discrete => {
                let all = on_units.into_iter().chain([base]);
                all.flat_map(|target| [target.clone(), Target { filling_workgroups: 1, ..target }]).collect()
            }
            DeviceClass::Cpu if self.little_work == u64::MAX => vec![little],
            DeviceClass::Cpu => {
                let much = Target { little_work: 0, subgroup: None, ..base.clone() };
                let with_subgroups = |texture_reuse| self.subgroup.map(|_| Target { little_work: 0, texture_reuse, ..base.clone() });
                let ordinary = [little, much].into_iter().chain(with_subgroups(0)).chain(with_subgroups(u64::MAX));
                on_units.into_iter().chain(ordinary).collect()
            }
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Workgroups needed for `items` invocations of `kernel`, one item each.
pub fn workgroups_for(kernel: &Kernel, items: usize) -> u64 {
    let size: u32 = kernel.workgroup_size.iter().product();
    (items as u64).div_ceil(u64::from(size))
}
