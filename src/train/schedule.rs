//! The learning rate of each update.
//!
//! With `t` the updates done so far, `W = warmup_epochs * steps_per_epoch` and `T = epochs * steps_per_epoch`, it is the following
//! times [`SETBACK_FACTOR`] for each time that the run has gone back to an earlier checkpoint:
//!
//! - warm-up, `t < W`: `lr * (t + 1) / W`, at most `lr`, whatever the schedule;
//! - `constant`: `lr`;
//! - `step`: `lr * step_gamma ^ floor(epoch / step_epochs)`, `epoch` counted from 0 at the start of
//!   the run (`torch.optim.lr_scheduler.StepLR`);
//! - `plateau`: `lr * step_gamma ^ reductions`, one for every time that the loss has not fallen for more than `patience` epochs
//!   ([`Progress`], `ReduceLROnPlateau`), as long as a reduction is more than 1e-8;
//! - `one-cycle`, whose warm-up is its own: along half a cosine from `lr / 25` up to `lr` over `W` updates, or `0.3 T` without a
//!   warm-up, and down to `lr / 25 / 10000` at the last update (`OneCycleLR` of PyTorch with its defaults, momentum constant);
//! - `cosine`: `lr / 2 * (1 + cos(pi * (t - W) / (T - W)))`, which is `lr` right after the warm-up
//!   and would be 0 at `T` (`CosineAnnealingLR` stepped per update).

use super::config::{Schedule, TrainConfig};
use super::progress::{Progress, SETBACK_FACTOR};

/// The learning rate of update number `step` (the first is 0) where an epoch has `steps_per_epoch`
/// updates, after epochs that went as `progress` says. Beyond the last epoch a cosine stays where it ended.
pub fn learning_rate(config: &TrainConfig, progress: &Progress, step: u64, steps_per_epoch: u64) -> f64 {
    scheduled(config, progress, step, steps_per_epoch) * SETBACK_FACTOR.powi(progress.setbacks as i32)
}

fn scheduled(config: &TrainConfig, progress: &Progress, step: u64, steps_per_epoch: u64) -> f64 {
    let per_epoch = steps_per_epoch.max(1);
    let done = step as f64;
    let warmup = config.warmup_epochs * per_epoch as f64;
    let total = f64::from(config.epochs) * per_epoch as f64;
    if config.schedule == Schedule::OneCycle {
        return one_cycle(config.lr, done, if warmup > 0.0 { warmup } else { RISING_SHARE * total }, total);
    }
    if done < warmup {
        return config.lr * ((done + 1.0) / warmup).min(1.0);
    }
    match config.schedule {
        Schedule::Constant => config.lr,
        Schedule::Step => {
            let epoch = step / per_epoch;
            let reductions = epoch / u64::from(config.step_epochs.max(1));
            config.lr * config.step_gamma.powf(reductions as f64)
        }
        Schedule::Cosine => {
            if done >= total {
                return 0.0;
            }
            let way = (done - warmup) / (total - warmup);
            config.lr / 2.0 * (1.0 + (std::f64::consts::PI * way).cos())
        }
        Schedule::Plateau => plateau(config, progress.reductions),
        Schedule::OneCycle => unreachable!("has its own warm-up"),
    }
}

/// Least reduction on a plateau: the `eps` of `ReduceLROnPlateau`.
const LEAST_REDUCTION: f64 = 1e-8;

fn plateau(config: &TrainConfig, reductions: u32) -> f64 {
    let rates = std::iter::successors(Some(config.lr), |rate| {
        let next = rate * config.step_gamma;
        (rate - next > LEAST_REDUCTION).then_some(next)
    });
    rates.take(reductions as usize + 1).last().unwrap_or(config.lr)
}

/// Share of a one-cycle run in which the rate rises.
const RISING_SHARE: f64 = 0.3;
/// The rate at its peak over that of the first update, and that over the last one's.
const FIRST_DIVISOR: f64 = 25.0;
const LAST_DIVISOR: f64 = 1e4;

/// PyTorch's `OneCycleLR`, which reaches its peak at update `rising - 1` and its end at update `total - 1`.
fn one_cycle(peak: f64, done: f64, rising: f64, total: f64) -> f64 {
    let first = peak / FIRST_DIVISOR;
    let (top, end) = (rising - 1.0, total - 1.0);
    let along = |from: f64, to: f64, way: f64| to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * way.min(1.0)).cos());
    if done <= top { along(first, peak, done / top) } else { along(peak, first / LAST_DIVISOR, (done - top) / (end - top)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(schedule: Schedule, warmup_epochs: f64) -> TrainConfig {
        let mut config = TrainConfig::defaults("nin").unwrap();
        config.schedule = schedule;
        config.warmup_epochs = warmup_epochs;
        config.lr = 0.4;
        config.epochs = 6;
        config.step_epochs = 2;
        config.step_gamma = 0.5;
        config
    }

    /// Rates of the given updates with 4 updates an epoch.
    fn rates(config: &TrainConfig, steps: &[u64]) -> Vec<f64> {
        steps.iter().map(|&step| learning_rate(config, &Progress::default(), step, 4)).collect()
    }

    fn assert_close(actual: &[f64], expected: &[f64]) {
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-12, "{actual:?} is not {expected:?}");
        }
    }

    #[test]
    fn constant_stays() {
        let config = config(Schedule::Constant, 0.0);
        assert_close(&rates(&config, &[0, 1, 23, 1000]), &[0.4; 4]);
    }

    #[test]
    fn warmup_rises_in_a_line() {
        let config = config(Schedule::Constant, 1.0);
        assert_close(&rates(&config, &[0, 1, 2, 3, 4]), &[0.1, 0.2, 0.3, 0.4, 0.4]);
        // W = 1.5 updates: the second would overshoot.
        let mut short = config;
        short.warmup_epochs = 0.375;
        assert_close(&rates(&short, &[0, 1, 2]), &[0.4 / 1.5, 0.4, 0.4]);
    }

    #[test]
    fn a_setback_quarters_the_rate_of_every_schedule() {
        for schedule in [Schedule::Constant, Schedule::Step, Schedule::Cosine, Schedule::Plateau, Schedule::OneCycle] {
            let config = config(schedule, 1.0);
            let of = |setbacks, step| learning_rate(&config, &Progress { setbacks, ..Progress::default() }, step, 4);
            for step in [0, 3, 9, 23] {
                assert_eq!((of(1, step), of(2, step)), (of(0, step) / 4.0, of(0, step) / 16.0), "{schedule:?} {step}");
            }
        }
    }

    #[test]
    fn step_halves_every_two_epochs() {
        let config = config(Schedule::Step, 0.0);
        assert_close(&rates(&config, &[0, 7, 8, 15, 16, 23]), &[0.4, 0.4, 0.2, 0.2, 0.1, 0.1]);
    }

    #[test]
    fn one_cycle_has_a_rate_however_short_the_run() {
        for (epochs, warmup_epochs) in [(1, 0.0), (1, 0.25), (1, 1.0), (2, 0.125), (3, 3.0)] {
            let mut config = config(Schedule::OneCycle, warmup_epochs);
            config.epochs = epochs;
            for steps_per_epoch in [1, 4] {
                let of = |step| learning_rate(&config, &Progress::default(), step, steps_per_epoch);
                let rates: Vec<f64> = (0..u64::from(epochs) * steps_per_epoch + 2).map(of).collect();
                assert!(rates.iter().all(|rate| *rate > 0.0 && *rate <= 0.4 + 1e-12), "{epochs} {warmup_epochs}: {rates:?}");
            }
        }
    }

    #[test]
    fn cosine_falls_to_zero() {
        let plain = config(Schedule::Cosine, 0.0);
        // A quarter of the way: (1 + cos 45 degrees) / 2.
        let quarter = 0.2 * (1.0 + 0.5f64.sqrt());
        assert_close(&rates(&plain, &[0, 6, 12, 24, 30]), &[0.4, quarter, 0.2, 0.0, 0.0]);
        // After a warm-up of 8 of 24 updates, 16 remain.
        let warm = config(Schedule::Cosine, 2.0);
        assert_close(&rates(&warm, &[3, 8, 12, 16, 24]), &[0.2, 0.4, quarter, 0.2, 0.0]);
        // Nothing but warm-up.
        let all = config(Schedule::Cosine, 6.0);
        assert_close(&rates(&all, &[23, 24]), &[0.4, 0.0]);
    }
}
