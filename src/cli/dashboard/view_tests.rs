//! Drawings of an invented run on terminals of every size.

use super::{State, Theme, draw};
use crate::train::metrics::{EpochLine, MetricsLine, StepLine};
use crate::train::trainer::{RunInfo, StepReport};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

fn run(first_step: u64) -> RunInfo {
    RunInfo {
        out: "runs/nin-small-1".into(),
        adapter: "llvmpipe".into(),
        train_images: 3000,
        test_images: 1000,
        steps_per_epoch: 100,
        epochs: 8,
        first_step,
        parameters: 71_274,
        batch_size: 32,
        micro_batch: 32,
        memory_bytes: 16 << 20,
        resident_bytes: 0,
    }
}

/// Two and a half of eight epochs.
fn state() -> State {
    let mut state = State::new("nin-small on my/pictures".into());
    state.start(&run(0), &[]);
    for step in (10..=250).step_by(10) {
        let (epoch, step_in_epoch) = (step / 100 + 1, step % 100);
        let loss = 2.3 / (1.0 + step as f64 / 50.0);
        state.step(&StepReport { epoch, step_in_epoch, step, loss, accuracy: 0.71, lr: 0.05, images_per_s: 1234.5 });
        if step % 100 == 0 {
            let test_acc = 0.5 + step as f64 / 1000.0;
            state.epoch(&EpochLine {
                epoch: step / 100,
                train_loss: loss,
                train_acc: 0.6,
                test_loss: loss,
                test_acc,
                seconds: 9.0,
                ..Default::default()
            });
        }
    }
    state.note("the data set has 10 classes; the model gets as many");
    state
}

fn drawn(state: &State, width: u16, height: u16, theme: Theme) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, 25.0, theme)).unwrap();
    terminal
}

/// The lines of a drawing.
fn text(state: &State, width: u16, height: u16) -> Vec<String> {
    let terminal = drawn(state, width, height, Theme::new(true));
    let buffer = terminal.backend().buffer();
    (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned()).collect()
}

fn dots(lines: &[String]) -> usize {
    lines.iter().flat_map(|line| line.chars()).filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count()
}

#[test]
fn figures_curves_and_notes_are_there() {
    let lines = text(&state(), 140, 36);
    let all = lines.join("\n");
    assert!(lines[0].starts_with("nin-small on my/pictures  llvmpipe, files go to runs/nin-small-1"), "{all}");
    assert!(lines[1].contains("epoch 3/8  31.2 %  55.0 s left"), "{all}");
    for (name, value) in [
        ("loss", "0.3833"),
        ("accuracy", "71.00 %"),
        ("best on test", "70.00 %"),
        ("time left", "55.0 s"),
        ("images/s", "1,234"),
        ("learning rate", "5.00e-2"),
        ("device memory", "16.0 MiB"),
        ("elapsed", "25.0 s"),
        ("step", "250/800"),
    ] {
        let at = lines[2].match_indices(name).map(|(at, _)| at).find(|at| at % 15 == 0);
        let at = at.unwrap_or_else(|| panic!("{name}\n{all}"));
        assert!(lines[3][at..].starts_with(value), "{name}\n{all}");
    }
    assert!(all.contains("training 0.460") && all.contains("test 70.0 %") && all.contains("epoch 2.5"), "{all}");
    assert!(dots(&lines) > 60, "{} dots\n{all}", dots(&lines));
    assert!(all.contains("notes") && all.contains("the model gets as many"), "{all}");
    assert_eq!(lines[35], "q or Ctrl-C: save and stop");
}

#[test]
fn every_size_can_be_drawn() {
    let mut early = State::new("nin on 數據".into());
    let states = [
        early.clone(),
        {
            early.start(&run(0), &[]);
            early
        },
        state(),
    ];
    let sizes = [1, 2, 3, 5, 6, 7, 8, 12, 17, 23, 24, 25, 40, 59, 60, 61, 80, 100, 300];
    for state in &states {
        for width in sizes {
            for height in sizes.into_iter().filter(|height| *height <= 100) {
                drawn(state, width, height, Theme::new(width % 2 == 0));
            }
        }
    }
    let small = text(&state(), 30, 3).join(" ");
    assert!(small.contains("31 % loss 0.3833 accuracy") && small.contains("55.0 s left"), "{small}");
}

#[test]
fn narrow_terminals_have_one_chart_above_the_other() {
    let all = text(&state(), 50, 40);
    let at = |name: &str| all.iter().position(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}\n{}", all.join("\n")));
    assert!(at(" accuracy  training") > at(" loss  by step") + 5);
}

#[test]
fn without_colours_there_are_none() {
    let has_colour = |theme| {
        let terminal = drawn(&state(), 120, 30, theme);
        terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(has_colour(Theme::new(true)) && !has_colour(Theme::new(false)));
}

#[test]
fn runs_that_go_on_show_what_was_before() {
    let step = |step, loss| MetricsLine::Step(StepLine { step, epoch: 1, loss, lr: 0.1, images_per_s: 10.0 });
    let epoch = EpochLine { epoch: 1, train_loss: 1.0, train_acc: 0.5, test_loss: 1.0, test_acc: 0.55, seconds: 1.0, ..Default::default() };
    let mut state = State::new("x".into());
    state.start(&run(120), &[step(50, 2.0), step(100, 1.5), MetricsLine::Epoch(epoch)]);
    assert_eq!((state.step_loss.len(), state.best, state.steps()), (2, Some((0.55, 1)), (120, 800)));
    assert_eq!(state.seconds_left(10.0), None);
    state.step(&StepReport { epoch: 2, step_in_epoch: 40, step: 140, loss: 1.2, accuracy: 0.6, lr: 0.1, images_per_s: 10.0 });
    // 20 steps in 10 seconds, 660 to go.
    assert_eq!(state.seconds_left(10.0), Some(330.0));
}

#[test]
fn what_came_after_the_checkpoint_that_a_run_went_back_to_is_gone() {
    let mut state = state();
    let epoch = |epoch, test_acc, test_loss| EpochLine { epoch, test_acc, test_loss, ..Default::default() };
    let before = (state.step_loss.clone(), state.loss.clone(), state.accuracy.clone());
    let (step, whole) = (state.steps().0, 100);
    state.step(&StepReport { epoch: 101, step_in_epoch: 1, step: step + 1, loss: 9.0, accuracy: 0.1, lr: 0.1, images_per_s: 1.0 });
    state.epoch(&epoch(101, 1.0, 1280.0));
    assert_eq!(state.best, Some((1.0, 101)));
    // As many recognised at a lower loss.
    state.epoch(&epoch(102, 1.0, 0.5));
    assert_eq!(state.best, Some((1.0, 102)));
    state.went_back(step, whole);
    assert_eq!((state.step_loss, state.loss, state.accuracy), before);
    assert_eq!(state.best, None);
}

#[test]
fn curves_and_notes_stay_bounded() {
    let mut state = State::new("x".into());
    state.start(&run(0), &[]);
    for step in 1..=20_000 {
        state.step(&StepReport { epoch: 1, step_in_epoch: step, step, loss: 1.0, accuracy: 0.5, lr: 0.1, images_per_s: 1.0 });
        state.note("again");
    }
    assert!((1000..=4096).contains(&state.step_loss.len()) && state.notes.len() == 100);
    assert!(state.step_loss.is_sorted_by(|a, b| a.0 < b.0));
    state.epoch(&EpochLine {
        epoch: 1,
        train_loss: f64::NAN,
        train_acc: 0.5,
        test_loss: f64::NAN,
        test_acc: f64::NAN,
        seconds: 1.0,
        ..Default::default()
    });
    assert!(state.loss[0].is_empty() && state.best.is_none());
}
