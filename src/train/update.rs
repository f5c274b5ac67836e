//! The update of all parameters as dispatches: clipping, the optimizer's rule, the average, and loss scaling around them.

use crate::kernels::Dispatch;
use crate::models::Training;
use crate::ops::{ClipNorm, GROWTH_INTERVAL, LossScale, Multiplier};
use crate::passes::{BufferRole, Region};

/// Buffers that an update needs beside parameters and gradients, for parameters of `bytes` bytes.
pub fn buffers(training: &Training, bytes: u64) -> Vec<(BufferRole, u64)> {
    let words = (bytes / 4) as usize;
    let mut buffers: Vec<_> = (0..training.state_names().len()).map(|index| (BufferRole::OptimizerState(index), bytes)).collect();
    buffers.push((BufferRole::Multipliers, Multiplier::bytes(words)));
    if training.clip_norm.is_some() {
        buffers.push((BufferRole::ClipPartials, ClipNorm::partial_bytes(words)));
        buffers.push((BufferRole::ClipResult, ClipNorm::RESULT_BYTES));
    }
    buffers
}

/// The dispatches of an update of parameters of `bytes` bytes from the gradients in `gradients`, each with a name, in order.
/// `loss_scale` is the buffer of loss scaling, where there is one.
pub fn dispatches(
    training: &Training,
    bytes: u64,
    gradients: BufferRole,
    loss_scale: Option<BufferRole>,
) -> Vec<(&'static str, Dispatch<Region>)> {
    let words = (bytes / 4) as usize;
    let region = |buffer, bytes| Region { buffer, offset: 0, bytes };
    let whole = |buffer| region(buffer, bytes);
    let (parameters, gradients) = (whole(BufferRole::Parameters), whole(gradients));
    let multipliers = region(BufferRole::Multipliers, Multiplier::bytes(words));
    let optimizer = &training.optimizer;
    let state: Vec<Region> = (0..optimizer.state_buffers().len()).map(|index| whole(BufferRole::OptimizerState(index))).collect();
    let scale = loss_scale.map(|role| region(role, LossScale::fact().bytes()));

    let mut list = Vec::new();
    if let Some(scale) = scale {
        list.push(("find_overflow", LossScale::find_overflow(words, gradients, scale)));
    }
    if let Some(clip) = training.clip_norm {
        let partials = region(BufferRole::ClipPartials, ClipNorm::partial_bytes(words));
        let result = region(BufferRole::ClipResult, ClipNorm::RESULT_BYTES);
        list.extend(clip.dispatches(words, gradients, partials, result, scale));
    }
    list.push(("update", optimizer.dispatch(words, parameters, gradients, &state, multipliers, scale)));
    if let Some(ema) = training.ema {
        list.push(("average", ema.dispatch(words, parameters, whole(BufferRole::OptimizerState(state.len())))));
    }
    if let Some(scale) = scale {
        list.push(("update_loss_scale", LossScale::update(optimizer, GROWTH_INTERVAL, scale)));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Ema;

    #[test]
    fn everything_runs_in_order() {
        let names = |training: &Training, scale| {
            dispatches(training, 4096, BufferRole::Gradients, scale).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let scale = Some(BufferRole::Slot(0));
        let mut training = Training::default();
        assert_eq!(names(&training, None), ["update"]);
        assert_eq!(names(&training, scale), ["find_overflow", "update", "update_loss_scale"]);
        (training.clip_norm, training.ema) = (Some(ClipNorm { max_norm: 1.0 }), Some(Ema { decay: 0.9 }));
        let all = ["find_overflow", "gradient_squares", "clip_factor", "clip", "update", "average", "update_loss_scale"];
        assert_eq!(names(&training, scale), all);
        assert_eq!(names(&training, None), all[1..6]);
        let roles: Vec<BufferRole> = buffers(&training, 4096).into_iter().map(|(role, _)| role).collect();
        for (name, dispatch) in dispatches(&training, 4096, BufferRole::GradientSum, None) {
            for region in &dispatch.buffers {
                let is_given = matches!(region.buffer, BufferRole::Parameters | BufferRole::GradientSum);
                assert!(is_given || roles.contains(&region.buffer), "{name}: {region:?}");
            }
        }
    }
}
