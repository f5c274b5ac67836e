//! What a confusion matrix and the answers for single images say about a model.

use crate::train::predict::Prediction;

/// How well one class is recognised. A share without anything to divide by is not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScore {
    /// Index of the class.
    pub class: usize,
    /// Images of it.
    pub images: u64,
    /// Share of the images taken for it that are of it.
    pub precision: f64,
    /// Share of its images that are recognised.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// The class that its images are most often taken for by mistake, and how many are.
    pub mistaken_for: Option<(usize, u64)>,
}

/// The score of every class; `confusion` has labels as rows and predictions as columns.
pub fn class_scores(confusion: &[Vec<u64>]) -> Vec<ClassScore> {
    let mut predicted = vec![0; confusion.len()];
    for row in confusion {
        predicted.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
    }
    let score = |(class, row): (usize, &Vec<u64>)| {
        let (images, right) = (row.iter().sum::<u64>(), row[class]);
        let mistakes = row.iter().copied().enumerate().filter(|(other, count)| *other != class && *count > 0);
        ClassScore {
            class,
            images,
            precision: right as f64 / predicted[class] as f64,
            recall: right as f64 / images as f64,
            f1: 2.0 * right as f64 / (images + predicted[class]) as f64,
            // The first of equals.
            mistaken_for: mistakes.rev().max_by_key(|(_, count)| *count),
        }
    };
    confusion.iter().enumerate().map(score).collect()
}

/// The mean over the classes that have images, each counting the same. A class that nothing is taken for has precision 0.
pub fn macro_average(scores: &[ClassScore]) -> [f64; 3] {
    let present: Vec<&ClassScore> = scores.iter().filter(|score| score.images > 0).collect();
    let mean = |value: fn(&ClassScore) -> f64| {
        present.iter().map(|score| if value(score).is_finite() { value(score) } else { 0.0 }).sum::<f64>() / present.len() as f64
    };
    [mean(|s| s.precision), mean(|s| s.recall), mean(|s| s.f1)]
}

/// Images of one class that were taken for another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confusion {
    /// The class that the data set gives.
    pub label: usize,
    /// The class that the model gives.
    pub predicted: usize,
    /// How many images.
    pub count: u64,
    /// As a share of the images of `label`.
    pub share: f64,
}

/// The `most` commonest confusions, by falling count.
pub fn commonest_confusions(confusion: &[Vec<u64>], most: usize) -> Vec<Confusion> {
    let mut found = Vec::new();
    for (label, row) in confusion.iter().enumerate() {
        let images: u64 = row.iter().sum();
        for (predicted, &count) in row.iter().enumerate().filter(|(predicted, count)| *predicted != label && **count > 0) {
            found.push(Confusion { label, predicted, count, share: count as f64 / images as f64 });
        }
    }
    found.sort_by(|a, b| b.count.cmp(&a.count).then(b.share.total_cmp(&a.share)));
    found.truncate(most);
    found
}

/// Numbers of the `most` images whose wrong answers the model was surest of, the surest first.
pub fn surest_mistakes(predictions: &[Prediction], most: usize) -> Vec<usize> {
    let is_mistake = |index: &usize| predictions[*index].result.predicted != predictions[*index].label as usize;
    let mut found: Vec<usize> = (0..predictions.len()).filter(is_mistake).collect();
    found.sort_by(|a, b| predictions[*b].result.confidence.total_cmp(&predictions[*a].result.confidence));
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::engine::ImageResult;

    #[test]
    fn scores_are_those_of_the_definitions() {
        // Class 2 is never met, class 3 never predicted.
        let confusion = vec![vec![6, 1, 1, 0], vec![2, 8, 0, 0], vec![0, 0, 0, 0], vec![0, 3, 1, 0]];
        let scores = class_scores(&confusion);
        assert_eq!((scores[0].images, scores[0].precision, scores[0].recall), (8, 0.75, 0.75));
        assert_eq!((scores[1].precision, scores[1].recall), (8.0 / 12.0, 0.8));
        let (p, r) = (scores[1].precision, scores[1].recall);
        assert!((scores[1].f1 - 2.0 * p * r / (p + r)).abs() < 1e-12);
        assert!(scores[2].recall.is_nan() && scores[2].precision == 0.0 && scores[3].precision.is_nan());
        assert_eq!((scores[3].recall, scores[3].f1), (0.0, 0.0));
        assert_eq!(scores.iter().map(|s| s.mistaken_for).collect::<Vec<_>>(), [Some((1, 1)), Some((0, 2)), None, Some((1, 3))]);
        let [precision, recall, _] = macro_average(&scores);
        assert!((precision - (0.75 + 8.0 / 12.0) / 3.0).abs() < 1e-12 && (recall - (0.75 + 0.8) / 3.0).abs() < 1e-12);
        assert!(macro_average(&[])[0].is_nan());
    }

    #[test]
    fn confusions_come_by_count() {
        let confusion = vec![vec![6, 1, 1], vec![2, 8, 0], vec![0, 2, 1]];
        let found: Vec<_> = commonest_confusions(&confusion, 3).iter().map(|c| (c.label, c.predicted, c.count)).collect();
        assert_eq!(found, [(2, 1, 2), (1, 0, 2), (0, 1, 1)]);
    }

    #[test]
    fn the_surest_mistake_comes_first() {
        let prediction = |label, predicted, confidence| Prediction {
            image: 0,
            label,
            result: ImageResult { loss: 1.0, rank: usize::from(label as usize != predicted), predicted, confidence },
        };
        let all = [prediction(0, 0, 0.99), prediction(1, 0, 0.5), prediction(1, 2, 0.9), prediction(2, 0, 0.7), prediction(2, 1, 0.9)];
        assert_eq!(surest_mistakes(&all, 3), [2, 4, 3]);
        assert_eq!(surest_mistakes(&all[..1], 3), [0; 0]);
    }
}
