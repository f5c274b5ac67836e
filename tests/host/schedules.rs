//! Learning rates against PyTorch's schedulers (`tests/goldens/schedules.json`).

use nin_wgpu::train::config::{Schedule, TrainConfig};
use nin_wgpu::train::progress::Progress;
use nin_wgpu::train::schedule::learning_rate;
use serde::Deserialize;

const UPDATES: u64 = 4;

#[derive(Deserialize)]
struct Goldens {
    step: Vec<Golden>,
    cosine: Vec<Golden>,
    one_cycle: Vec<Golden>,
    plateau: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    lr: f64,
    epochs: u32,
    step_epochs: Option<u32>,
    gamma: Option<f64>,
    #[serde(default)]
    warmup_epochs: f64,
    patience: Option<u32>,
    losses: Option<Vec<f64>>,
    rates: Vec<f64>,
}

fn follow(schedule: Schedule, golden: &Golden) {
    let mut config = TrainConfig::defaults("nin").unwrap();
    (config.schedule, config.lr, config.epochs, config.warmup_epochs) = (schedule, golden.lr, golden.epochs, golden.warmup_epochs);
    config.step_epochs = golden.step_epochs.unwrap_or(config.step_epochs);
    config.step_gamma = golden.gamma.unwrap_or(config.step_gamma);
    config.patience = golden.patience.unwrap_or(config.patience);
    assert_eq!(golden.rates.len() as u64, u64::from(golden.epochs) * UPDATES);
    let mut progress = Progress::default();
    for (step, expected) in golden.rates.iter().enumerate() {
        let rate = learning_rate(&config, &progress, step as u64, UPDATES);
        assert!((rate - expected).abs() <= 1e-12 * golden.lr, "{schedule}, update {step}: {rate}, PyTorch {expected}");
        if (step + 1).is_multiple_of(UPDATES as usize)
            && let Some(losses) = &golden.losses
        {
            let before = progress.reductions;
            let falls = progress.finish_epoch(&config, losses[step / UPDATES as usize], true);
            assert_eq!(falls, progress.reductions > before);
        }
    }
}

#[test]
fn schedules_follow_pytorch() {
    let goldens: Goldens = serde_json::from_str(include_str!("../goldens/schedules.json")).unwrap();
    let kinds = [
        (Schedule::Step, &goldens.step),
        (Schedule::Cosine, &goldens.cosine),
        (Schedule::OneCycle, &goldens.one_cycle),
        (Schedule::Plateau, &goldens.plateau),
    ];
    for (schedule, cases) in kinds {
        assert!(cases.len() >= 2, "{schedule}");
        cases.iter().for_each(|golden| follow(schedule, golden));
    }
    assert!(goldens.plateau.iter().any(|golden| golden.rates.last() < Some(&(golden.lr / 90.0))), "some rate falls twice");
}

#[test]
fn a_warm_up_comes_before_any_schedule_but_one_cycle() {
    let mut config = TrainConfig::defaults("nin").unwrap();
    (config.warmup_epochs, config.lr) = (2.0, 0.8);
    let reduced = Progress { reductions: 1, ..Progress::default() };
    for &schedule in Schedule::ALL.iter().filter(|schedule| **schedule != Schedule::OneCycle) {
        config.schedule = schedule;
        assert_eq!(learning_rate(&config, &reduced, 3, UPDATES), 0.4, "{schedule}");
    }
    config.schedule = Schedule::Plateau;
    assert!((learning_rate(&config, &reduced, 8, UPDATES) - 0.08).abs() < 1e-12);
}
