//! Device memory: what the plan says, what is created, and what wgpu's own allocator has handed out.

use crate::network::Setup;
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::{Gpu, GpuError, OpenOptions};
use nin_wgpu::models::Purpose;
use nin_wgpu::passes::CompileOptions;
use nin_wgpu::train::engine::{ForwardEngine, ImageResult};
use nin_wgpu::train::resident::DeviceInput;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![
        trial(device, "memory::the plan is what is created", |_| plan_is_created(CompileOptions::default())),
        trial(device, "memory::a budget is kept", |_| budget_is_kept()),
        trial(device, "memory::evaluation in the memory of training", evaluation_beside_training),
    ]
}

/// A device of the test's own, whose memory nobody else takes.
fn open(memory_budget: Option<u64>) -> Result<Gpu, String> {
    Gpu::open(&OpenOptions { memory_budget, ..Default::default() }).map_err(|e| e.to_string())
}

fn off_by(got: u64, expected: u64) -> f64 {
    (got as f64 / expected as f64 - 1.0).abs()
}

pub fn plan_is_created(switches: CompileOptions) -> Result<(), String> {
    let gpu = open(None)?;
    let before = gpu.allocated_bytes();
    let setup = Setup::new("nin-cifar", 48);
    let mut engine = setup.engine(&gpu, 6, switches)?;
    let (planned, created) = (engine.memory().total(), gpu.memory().bytes);
    if planned < 5_000_000 || off_by(created, planned) > 0.01 {
        return Err(format!("{created} bytes were created, planned were {}", engine.memory()));
    }
    setup.run(&gpu, &mut engine, 1)?;
    gpu.wait().map_err(|e| e.to_string())?;
    if gpu.memory().bytes != created {
        return Err(format!("{created} bytes have become {:?}", gpu.memory()));
    }
    match (before, gpu.allocated_bytes()) {
        (Some(before), Some(after)) if off_by(after - before, planned) > 0.05 => {
            return Err(format!("wgpu has allocated {} bytes, planned were {planned}", after - before));
        }
        (None, _) if ["vulkan", "dx12"].contains(&gpu.adapter().backend) => return Err("wgpu has no report".into()),
        _ => {}
    }
    drop(engine);
    match gpu.memory().bytes {
        0 => Ok(()),
        left => Err(format!("{left} bytes are left of a dropped engine")),
    }
}

fn budget_is_kept() -> Result<(), String> {
    let setup = Setup::new("nin-cifar", 32);
    let whole = setup.engine(&open(None)?, 6, CompileOptions::default())?.memory().total();
    let budget = whole * 8 / 10;
    let gpu = open(Some(budget))?;
    let mut engine = setup.engine(&gpu, 6, CompileOptions::default())?;
    if engine.micro_batch() == 6 {
        return Err(format!("6 images at once, planned with {} of {budget}", engine.memory()));
    }
    setup.run(&gpu, &mut engine, 1)?;
    let (peak, allowed) = (gpu.memory().peak_bytes, budget);
    if peak > allowed || peak < allowed / 2 {
        return Err(format!("the peak is {peak} bytes, the budget {allowed}"));
    }
    // Beside the engine there is no room for this.
    match gpu.allocate("too much", budget / 2) {
        Err(GpuError::OverBudget { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// The same results as with memory of its own, and training goes on undisturbed.
fn evaluation_beside_training(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let text = |e: nin_wgpu::train::TrainError| e.to_string();
    let mut engine = setup.engine(gpu, 6, CompileOptions::default())?;
    let switches = CompileOptions::default();
    let (model, options, input) = (setup.model, &setup.options, &setup.input);
    let mut apart =
        ForwardEngine::new(gpu, model, options, input, Purpose::Evaluate, 6, engine.parameters(), DeviceInput::default(), switches)
            .map_err(text)?;
    let in_use = gpu.memory().bytes;
    let mut beside =
        ForwardEngine::beside(gpu, &engine, model, options, input, Purpose::Evaluate, 6, DeviceInput::default(), switches).map_err(text)?;
    let added = gpu.memory().bytes - in_use;
    if added > beside.memory().total() - beside.memory().parameters - beside.memory().temporaries + 4096 {
        return Err(format!("{added} bytes were added, of {}", beside.memory()));
    }
    let rows = |engine: &mut ForwardEngine| -> Result<Vec<ImageResult>, String> {
        engine.evaluate(gpu, std::iter::once(Ok(setup.batch(2))), |_| {}).map_err(text)
    };
    setup.run(gpu, &mut engine, 2)?;
    let (first, second) = (rows(&mut apart)?, rows(&mut beside)?);
    if first.is_empty() || first != second {
        return Err(format!("{first:?} and {second:?}"));
    }
    let trained = setup.run(gpu, &mut engine, 2)?.1;
    let mut undisturbed = setup.engine(gpu, 6, switches)?;
    setup.run(gpu, &mut undisturbed, 2)?;
    if trained != setup.run(gpu, &mut undisturbed, 2)?.1 {
        return Err("evaluation has changed what is learned".into());
    }
    Ok(())
}
