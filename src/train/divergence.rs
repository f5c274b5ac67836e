//! What a run looks like that learns nothing any more.

use super::config::{Precision, TrainConfig};
use super::progress::SETBACK_FACTOR;
use std::fmt;

/// A run that went wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Updates done when it was seen, counted from 1.
    pub step: u64,
    /// What was seen.
    pub symptom: Symptom,
    /// The first place in forward order that shows it, where it was found.
    pub origin: Option<Origin>,
    /// Updates of the checkpoint that is kept.
    pub kept: u64,
    /// Settings with which the run may end better.
    pub advice: Vec<String>,
    /// How often the run had gone back to an earlier checkpoint before.
    pub setbacks: u32,
}

/// How divergence shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Symptom {
    /// The loss of an update's images is not a finite number.
    Loss(f64),
    /// The loss of the test images is not a finite number.
    TestLoss(f64),
    /// An update has made parameters, or the optimizer's state, that are not finite.
    Parameters,
    /// All classes score the same for every image, and every gradient is zero.
    DeadLogits,
    /// Every test image gets the same answer, bit for bit.
    SameAnswer,
    /// The mean loss of an epoch, finite, is far above that of equal scores.
    Exploded(f64),
}

/// A layer and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The layer's path and operation, or a parameter's name.
    pub place: String,
    /// What it does: completes a sentence that begins with the place.
    pub fault: &'static str,
}

impl Divergence {
    /// Seen after `step` updates; where it comes from is found out later.
    pub fn new(step: u64, symptom: Symptom) -> Self {
        Divergence { step, symptom, origin: None, kept: 0, advice: Vec::new(), setbacks: 0 }
    }

    /// What was seen, and when.
    pub fn seen(&self) -> String {
        let step = self.step;
        match self.symptom {
            Symptom::Loss(loss) => format!("training diverged: the loss of step {step} is {loss}"),
            Symptom::TestLoss(loss) => format!("training diverged: the loss of the test images after step {step} is {loss}"),
            Symptom::Parameters => format!("training diverged: step {step} has made parameters that are not finite"),
            Symptom::DeadLogits => format!(
                "training collapsed: at step {step} all classes score the same for every image, and no gradient is left to learn from"
            ),
            Symptom::SameAnswer => format!("training collapsed: after step {step} every test image gets the same answer"),
            Symptom::Exploded(loss) => {
                format!("training diverged: the mean loss of the epoch that ends with step {step} is {}", four_digits(loss))
            }
        }
    }

    /// Advises settings that are milder than those of the run, after it has gone back `setbacks` times.
    pub fn advise(&mut self, config: &TrainConfig, setbacks: u32) {
        self.setbacks = setbacks;
        let rate = config.lr * SETBACK_FACTOR.powi(setbacks as i32 + 1);
        self.advice = vec![format!("a smaller --lr such as {}", two_digits(rate))];
        let warmup = (2.0 * config.warmup_epochs).max(1.0).ceil();
        if warmup <= f64::from(config.epochs) {
            self.advice.push(format!("--warmup-epochs {warmup}"));
        }
        if config.clip_norm.is_none_or(|norm| norm > CLIP_NORM) {
            self.advice.push(format!("--clip-norm {CLIP_NORM}"));
        }
        let is_dead = matches!(self.symptom, Symptom::DeadLogits | Symptom::SameAnswer);
        if is_dead && config.head_bias.is_none_or(|bias| bias < HEAD_BIAS) {
            self.advice.push(format!("--head-bias {HEAD_BIAS}"));
        }
        if !is_dead && config.precision == Precision::Mixed {
            self.advice.push("--precision f32".into());
        }
        if is_dead {
            self.advice.push("another --seed".into());
        }
    }
}

/// The norm that is advised for `--clip-norm`, and that short runs on own pictures clip to.
pub const CLIP_NORM: f64 = 1.0;
/// The start that is advised for the last biases: that of `nin-small`.
pub const HEAD_BIAS: f64 = 5.0;

/// A loss as text: exploded ones may have a hundred digits.
fn four_digits(loss: f64) -> String {
    if loss < 1e6 { format!("{loss:.4}") } else { format!("{loss:.3e}") }
}

/// A positive number rounded to two digits.
fn two_digits(value: f64) -> f64 {
    let unit = 10f64.powi(value.log10().floor() as i32 - 1);
    let rounded = (value / unit).round() * unit;
    // Through decimal text, as the product is not exact.
    format!("{rounded:.1e}").parse().unwrap_or(rounded)
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.seen())?;
        if let Some(Origin { place, fault }) = &self.origin {
            write!(f, "; {place} is the first {fault}")?;
        }
        match self.setbacks {
            0 => {}
            1 => write!(f, "; going back to an earlier checkpoint with a smaller learning rate did not help")?,
            times => write!(f, "; going back to an earlier checkpoint with a smaller learning rate, {times} times, did not help")?,
        }
        write!(f, "; the checkpoint of step {} is kept", self.kept)?;
        match &self.advice[..] {
            [] => Ok(()),
            [only] => write!(f, ". Start again with {only}"),
            [first @ .., last] => write!(f, ". Start again with {} or {last}", first.join(", ")),
        }
    }
}

impl std::error::Error for Divergence {}

/// Updates in a row with the loss of equal logits before gradients are looked at.
const SUSPICIOUS_UPDATES: u64 = 50;
/// How far rounding may bring that loss from ln C, relative.
const ROUNDING: f64 = 2e-6;

/// Watches for logits that are equal for every image.
///
/// Early in training, losses near ln C are ordinary, and may stay there for hundreds of updates. So the loss alone says
/// nothing: only where it is ln C up to rounding for many updates is it worth asking the device whether a gradient is left.
#[derive(Clone, Debug)]
pub struct CollapseWatch {
    uniform_loss: f64,
    in_a_row: u64,
    is_cleared: bool,
}

impl CollapseWatch {
    /// For a number of classes.
    pub fn new(classes: usize) -> Self {
        CollapseWatch { uniform_loss: (classes as f64).ln(), in_a_row: 0, is_cleared: false }
    }

    /// Takes the mean loss of an update.
    pub fn observe(&mut self, loss: f64) {
        if (loss - self.uniform_loss).abs() <= ROUNDING * self.uniform_loss {
            self.in_a_row += 1;
        } else {
            (self.in_a_row, self.is_cleared) = (0, false);
        }
    }

    /// Whether the gradients of the last update should be looked at.
    pub fn wants_proof(&self) -> bool {
        self.in_a_row >= SUSPICIOUS_UPDATES && !self.is_cleared
    }

    /// Whether the last update may be that of a dead network, which should not replace a good checkpoint.
    pub fn is_suspicious(&self) -> bool {
        self.in_a_row > 0 && !self.is_cleared
    }

    /// There were gradients: all is well until the loss has been another one.
    pub fn clear(&mut self) {
        self.is_cleared = true;
    }
}

/// How far above the loss of equal scores the mean loss of an epoch shows that a network, which had learned, has come apart: one
/// that is merely sure of wrong answers stays well below.
const EXPLOSION: f64 = 10.0;

/// Whether the mean loss of an epoch, or of the test behind it, is that of a network that has come apart.
pub fn is_explosion(loss: f64, classes: usize) -> bool {
    loss > EXPLOSION * (classes as f64).ln()
}

/// Whether a network has learned something by its losses and answers: more of the test images recognised than by always
/// naming the class that `commonest` of them have, or without test images a lower loss than that of equal scores.
pub fn has_learned(test_accuracy: f64, commonest: f64, train_loss: f64, classes: usize) -> bool {
    if test_accuracy.is_finite() { test_accuracy > commonest } else { train_loss < (classes as f64).ln() }
}

/// Updates before equal answers end a run: momentum may still bring a network back that its first updates have silenced.
pub const SETTLED_UPDATES: u64 = 50;

/// Whether test images all get the same answer, whatever they show: with one label the same loss bit for bit, and the same
/// class predicted for different labels. `answers` are (label, loss, predicted class).
pub fn is_same_answer(answers: impl IntoIterator<Item = (u32, f32, usize)>) -> bool {
    let mut by_label = std::collections::BTreeMap::new();
    let mut predicted = None;
    let mut repeats = 0;
    for (label, loss, class) in answers {
        if *predicted.get_or_insert(class) != class {
            return false;
        }
        match by_label.insert(label, loss.to_bits()) {
            Some(bits) if bits != loss.to_bits() => return false,
            Some(_) => repeats += 1,
            None => {}
        }
    }
    by_label.len() > 1 && repeats >= 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_with_place_and_advice() {
        let mut config = TrainConfig::defaults("nin").unwrap();
        let mut divergence = Divergence::new(7, Symptom::Loss(f64::NAN));
        divergence.advise(&config, 0);
        assert_eq!(
            divergence.to_string(),
            "training diverged: the loss of step 7 is NaN; the checkpoint of step 0 is kept. Start again with a smaller --lr such as \
             0.025, --warmup-epochs 1 or --clip-norm 1"
        );
        config.precision = Precision::Mixed;
        divergence.advise(&config, 0);
        assert!(divergence.to_string().ends_with("--clip-norm 1 or --precision f32"), "{divergence}");
        divergence.symptom = Symptom::DeadLogits;
        divergence.origin = Some(Origin { place: "7.5 (relu)".into(), fault: "layer that gives zeros for every image" });
        divergence.kept = 5;
        divergence.advise(&config, 3);
        let text = divergence.to_string();
        assert!(text.contains("7.5 (relu) is the first layer that gives zeros") && text.contains("step 5 is kept"), "{text}");
        assert!(text.contains("--head-bias") && !text.contains('\n'), "{text}");
        assert!(text.contains("3 times, did not help") && text.contains("such as 0.00039, "), "{text}");
    }

    #[test]
    fn advice_is_never_weaker_than_what_the_run_had() {
        let mut config = TrainConfig::defaults("nin-small").unwrap();
        (config.clip_norm, config.warmup_epochs) = (Some(0.5), 3.0);
        let mut divergence = Divergence::new(60, Symptom::SameAnswer);
        divergence.advise(&config, 0);
        assert_eq!(divergence.advice, ["a smaller --lr such as 0.01", "--warmup-epochs 6", "another --seed"]);
        (config.clip_norm, config.warmup_epochs, config.head_bias) = (Some(5.0), 20.0, Some(1.0));
        divergence.advise(&config, 1);
        assert_eq!(divergence.advice, ["a smaller --lr such as 0.0025", "--clip-norm 1", "--head-bias 5", "another --seed"]);
        for (value, rounded) in [(0.0123, 0.012), (2.5e-5, 2.5e-5), (1e30, 1e30), (0.0999, 0.1), (640.0, 640.0)] {
            assert_eq!(two_digits(value), rounded);
        }
    }

    #[test]
    fn a_wrong_answer_that_is_sure_of_itself_is_no_explosion() {
        assert!(is_explosion(1280.0, 3) && is_explosion(f64::INFINITY, 10));
        assert!(!is_explosion(5.0, 3) && !is_explosion(f64::NAN, 3));
        assert!(has_learned(0.5, 0.33, f64::NAN, 3) && !has_learned(0.5, 0.5, 0.1, 2));
        assert!(has_learned(f64::NAN, f64::NAN, 0.5, 2) && !has_learned(f64::NAN, f64::NAN, 0.7, 2));
    }

    #[test]
    fn a_slow_start_is_not_suspected_for_long() {
        let mut watch = CollapseWatch::new(10);
        let uniform = 10f64.ln();
        // As d2l's NiN begins: near ln 10 for hundreds of updates, now and then by chance very near.
        for update in 0..1000u32 {
            watch.observe(uniform + f64::from(update % 7) * 1e-5);
            assert!(!watch.wants_proof());
        }
        for _ in 0..SUSPICIOUS_UPDATES {
            assert!(!watch.wants_proof());
            watch.observe(f64::from(uniform as f32) * (1.0 + 1e-7));
            assert!(watch.is_suspicious());
        }
        assert!(watch.wants_proof());
        watch.clear();
        watch.observe(uniform);
        assert!(!watch.wants_proof() && !watch.is_suspicious());
        watch.observe(2.0);
        for _ in 0..SUSPICIOUS_UPDATES {
            watch.observe(uniform);
        }
        assert!(watch.wants_proof());
    }

    #[test]
    fn the_same_answer_is_one_that_no_image_changes() {
        let dead: Vec<(u32, f32, usize)> = (0..40).map(|n| (n % 10, (10f32).ln() + (n % 10) as f32, 3)).collect();
        assert!(is_same_answer(dead.clone()));
        let mut alive = dead.clone();
        alive[17].1 = f32::from_bits(alive[17].1.to_bits() + 1);
        assert!(!is_same_answer(alive));
        let mut alive = dead.clone();
        alive[17].2 = 4;
        assert!(!is_same_answer(alive));
        // One class of images, all recognised without doubt.
        assert!(!is_same_answer((0..40).map(|_| (0, 0.0, 0))));
        assert!(!is_same_answer(dead.into_iter().take(10)));
        assert!(!is_same_answer([]));
    }
}
