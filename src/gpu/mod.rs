//! Everything that talks to wgpu: adapters, pipelines, buffers, execution, readback and errors.
//!
//! The rest of the crate hands over plain data ([`crate::passes::Schedule`]) and gets plain bytes back.

mod adapter;
mod buffers;
mod cache_dir;
mod cores;
mod device;
mod differences;
mod environment;
mod error;
mod llvmpipe;
mod memory;
mod pacing;
mod pipeline_cache;
mod pipelines;
mod program;
mod proof;
mod readback;
mod robust;
mod roofline;
pub mod spirv;
mod timing;
pub mod tuner;
pub mod verify;

pub use adapter::{AdapterDescription, adapters, no_adapter, probe};
pub use buffers::{Buffers, DeviceBuffer};
pub use cache_dir::cache_dir;
pub use device::{Gpu, OpenOptions, STAGING_BYTES};
pub use differences::{Comparison, DeviceTensor, Difference, difference_on_host};
pub use environment::prepare_environment;
pub use error::GpuError;
pub use memory::MemoryInUse;
pub use program::{Program, StepUniforms, Submitter};
pub use proof::{HalfFault, HalfProof, keep_half, known_half, prove_half, prove_matrix_units, prove_storage};
pub use readback::{Readback, ReadbackRing};
pub use roofline::{Roofline, matrix_roofline, roofline};
pub use timing::DispatchTime;
