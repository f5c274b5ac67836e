//! From a model's graph to a schedule: each pass is one function with one plain-data result that can be printed.
//!
//! `autodiff` appends the backward nodes, `fuse` merges element-wise nodes into their producers, `order` drops what
//! nobody reads, `recompute` trades work for memory where that is asked for, `plan` lowers nodes to kernels and shares memory by
//! lifetime, `schedule` resolves every operand to a region of a buffer.

mod autodiff;
mod fuse;
mod order;
mod place;
mod plan;
mod recompute;
mod schedule;
#[cfg(test)]
mod tests;
mod timeline;

pub use autodiff::{AutodiffError, autodiff};
pub use fuse::fuse;
pub use order::order;
pub use place::place;
pub use plan::{Plan, PlanError, PlanOptions, Tenant, plan};
pub use recompute::recompute;
pub use schedule::{Arena, BufferRole, Pass, Region, Schedule, ScheduledDispatch, schedule};

use crate::graph::Graph;
use crate::kernels::Target;

/// Switches for diagnosis; results do not depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// Merge element-wise nodes into their producers.
    pub fuse: bool,
    /// Compute cheap values again instead of keeping them: less memory, more work.
    pub recompute: bool,
    /// Share memory between values.
    pub plan: PlanOptions,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions { fuse: true, recompute: false, plan: PlanOptions::default() }
    }
}

impl CompileOptions {
    /// Everything on, but for what `NIN_WGPU_NO_FUSION=1` and `NIN_WGPU_NO_PLANNER=1` switch off.
    pub fn from_env() -> Self {
        let is_on = |name: &str| std::env::var_os(name).is_some_and(|v| v == "1");
        let plan = PlanOptions { share: !is_on("NIN_WGPU_NO_PLANNER") };
        CompileOptions { fuse: !is_on("NIN_WGPU_NO_FUSION"), plan, ..Default::default() }
    }
}

/// The result of every pass.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// After fusion and ordering.
    pub graph: Graph,
    /// Kernels and memory.
    pub plan: Plan,
    /// What a device runs.
    pub schedule: Schedule,
}

/// Runs all passes behind `autodiff`.
pub fn compile(mut graph: Graph, target: &Target, options: CompileOptions) -> Result<Compiled, PlanError> {
    order(&mut graph);
    if options.fuse {
        fuse(&mut graph);
    }
    if options.recompute {
        recompute(&mut graph);
    }
    let plan = plan(&graph, target, options.plan)?;
    let schedule = schedule(&graph, &plan, target.offset_alignment);
    Ok(Compiled { graph, plan, schedule })
}
