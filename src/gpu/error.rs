//! What can go wrong between the program and an adapter.

use crate::variables::Invalid;

/// A failure of the adapter, its driver or its memory.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GpuError {
    /// No adapter at all.
    #[error("no GPU adapter found. {}", INSTALL_HELP)]
    NoAdapter,
    /// Adapters exist, but none fits what was asked for.
    #[error("no adapter matches --device {spec}; there {}: {available}. `nin-wgpu devices` lists them", plural(.available))]
    NoMatch {
        /// What was asked for.
        spec: String,
        /// Names of the adapters there are.
        available: String,
    },
    /// `WGPU_BACKEND` leaves only backends that this system does not have.
    #[error("WGPU_BACKEND={value}: this system has no such backend, only {available}; name one of those or unset it")]
    NoBackend {
        /// The variable's value.
        value: String,
        /// The backends there are.
        available: String,
    },
    /// A variable of the environment has a value that means nothing.
    #[error(transparent)]
    Setting(#[from] Invalid),
    /// The device disappeared (driver reset, unplugged, watchdog).
    #[error("the device was lost: {0}. Work up to the last checkpoint is kept; run again with --resume")]
    DeviceLost(String),
    /// The device has no memory left.
    #[error("out of device memory while {0}; use a smaller --batch-size or --image-size")]
    OutOfMemory(String),
    /// A buffer is larger than the adapter allows.
    #[error("{what} takes {bytes} bytes, over this adapter's limit of {limit}; use a smaller --batch-size or --image-size")]
    OverLimit {
        /// The buffer.
        what: String,
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The adapter lacks what mixed precision needs.
    #[error("{adapter} has no {feature}, which --precision mixed needs; use --precision f32")]
    MissingFeature {
        /// Name of the adapter.
        adapter: String,
        /// wgpu's name of the feature.
        feature: &'static str,
    },
    /// Kernels in half precision give wrong results here.
    #[error("{adapter} computes wrongly in half precision ({reason}); use precision f32")]
    WrongHalf {
        /// Name of the adapter.
        adapter: String,
        /// What it gets wrong.
        reason: String,
    },
    /// A buffer would exceed the memory budget.
    #[error(
        "{what} takes {bytes} bytes beside the {in_use} in use, over the memory budget of {budget}; raise --memory-budget, or use a \
         smaller --batch-size or --image-size"
    )]
    OverBudget {
        /// The buffer.
        what: String,
        /// Its size.
        bytes: u64,
        /// What other buffers take.
        in_use: u64,
        /// What all may take.
        budget: u64,
    },
    /// The driver or wgpu refused a command: a fault of this program or of the driver.
    #[error("the adapter refused a command: {0}")]
    Refused(String),
}

const INSTALL_HELP: &str = "Install a driver: on Debian or Ubuntu `apt install mesa-vulkan-drivers`, on Fedora `dnf install mesa-vulkan-drivers` \
     (both also run on the CPU), for NVIDIA the vendor's driver; on Windows update the graphics driver (DX12 is built in); \
     on macOS 11 or later Metal is built in";

fn plural(available: &str) -> &'static str {
    if available.contains(", ") { "are" } else { "is" }
}
