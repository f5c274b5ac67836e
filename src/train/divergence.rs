//! What a run looks like that learns nothing any more.

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
    /// The run computes in mixed precision.
    pub is_mixed: bool,
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
        Divergence { step, symptom, origin: None, kept: 0, is_mixed: false }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step;
        match self.symptom {
            Symptom::Loss(loss) => write!(f, "training diverged: the loss of step {step} is {loss}")?,
            Symptom::TestLoss(loss) => write!(f, "training diverged: the loss of the test images after step {step} is {loss}")?,
            Symptom::Parameters => write!(f, "training diverged: step {step} has made parameters that are not finite")?,
            Symptom::DeadLogits => write!(
                f,
                "training collapsed: at step {step} all classes score the same for every image, and no gradient is left to learn from"
            )?,
            Symptom::SameAnswer => write!(f, "training collapsed: after step {step} every test image gets the same answer")?,
        }
        if let Some(Origin { place, fault }) = &self.origin {
            write!(f, "; {place} is the first {fault}")?;
        }
        write!(f, "; the checkpoint of step {} is kept. ", self.kept)?;
        match self.symptom {
            Symptom::DeadLogits | Symptom::SameAnswer => {
                write!(f, "Start again with a smaller --lr, --warmup-epochs 1, --head-bias 1 or another --seed")
            }
            _ if self.is_mixed => write!(f, "Start again with a smaller --lr, with --warmup-epochs 1, or with --precision f32"),
            _ => write!(f, "Start again with a smaller --lr, or with --warmup-epochs 1"),
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
        let mut divergence = Divergence::new(7, Symptom::Loss(f64::NAN));
        assert_eq!(
            divergence.to_string(),
            "training diverged: the loss of step 7 is NaN; the checkpoint of step 0 is kept. Start again with a smaller --lr, or with \
             --warmup-epochs 1"
        );
        divergence.symptom = Symptom::DeadLogits;
        divergence.origin = Some(Origin { place: "7.5 (relu)".into(), fault: "layer that gives zeros for every image" });
        divergence.kept = 5;
        let text = divergence.to_string();
        assert!(text.contains("7.5 (relu) is the first layer that gives zeros") && text.contains("step 5 is kept"), "{text}");
        assert!(text.contains("--head-bias") && !text.contains('\n'), "{text}");
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
