//! From a model's graph to a schedule: each pass is one function with one plain-data result that can be printed.
//!
//! `autodiff` appends the backward nodes, `order` drops what nobody reads, `precision` says what is stored in half precision,
//! `fuse` merges element-wise nodes into their producers, `recompute` trades work for memory where that is asked for, `plan` lowers
//! nodes to kernels and shares memory by lifetime, `schedule` resolves every operand to a region of a buffer.

mod autodiff;
mod fuse;
mod order;
mod place;
mod plan;
mod precision;
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
pub use precision::precision;
pub use recompute::recompute;
pub use schedule::{Arena, BufferRole, Pass, Region, Schedule, ScheduledDispatch, schedule};

use crate::graph::{Graph, ValueId};
use crate::kernels::Target;
use crate::variables;

/// How to compile. Results depend on the precision; the other switches are for diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// Mixed precision: store activations and filters in f16 (see [`precision`]).
    pub half: bool,
    /// Merge element-wise nodes into their producers.
    pub fuse: bool,
    /// Compute cheap values again instead of keeping them: less memory, more work.
    pub recompute: bool,
    /// Share memory between values.
    pub plan: PlanOptions,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions { half: false, fuse: true, recompute: false, plan: PlanOptions::default() }
    }
}

impl CompileOptions {
    /// Single precision with everything on, but for what `NIN_WGPU_NO_FUSION=1` and `NIN_WGPU_NO_PLANNER=1` switch off.
    pub fn from_env() -> Self {
        let plan = PlanOptions { share: !variables::NO_PLANNER.is_on() };
        CompileOptions { fuse: !variables::NO_FUSION.is_on(), plan, ..Default::default() }
    }
}

/// The result of every pass.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// After fusion and ordering.
    pub graph: Graph,
    /// In mixed precision the state that scales the gradients of a graph that has them ([`crate::ops::LossScale`]).
    pub loss_scale: Option<ValueId>,
    /// Kernels and memory.
    pub plan: Plan,
    /// What a device runs.
    pub schedule: Schedule,
}

/// Runs all passes behind `autodiff`.
pub fn compile(mut graph: Graph, target: &Target, options: CompileOptions) -> Result<Compiled, PlanError> {
    order(&mut graph);
    let loss_scale = if options.half { precision(&mut graph) } else { None };
    if options.fuse {
        fuse(&mut graph);
    }
    if options.recompute {
        recompute(&mut graph);
    }
    let plan = plan(&graph, target, options.plan)?;
    let schedule = schedule(&graph, &plan, target.offset_alignment);
    Ok(Compiled { graph, loss_scale, plan, schedule })
}
