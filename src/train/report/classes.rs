//! How well each class is recognised, what is taken for what, and the surest mistakes.

use super::analysis::{ClassScore, class_scores, commonest_confusions, macro_average};
use super::html::{Column, Escaped, name_cell, table_head};
use super::{Facts, Mistake, picture};
use crate::train::format::{percent, thousands};
use std::fmt::Write as _;

/// Most classes whose confusion matrix is a table of numbers, and whose scores are all in sight.
const MOST_IN_TABLE: usize = 40;
/// Rows in sight where there are more classes.
const WORST: usize = 20;
/// Confusions that are listed where the matrix is too large for numbers.
const CONFUSIONS: usize = 30;
/// Most classes whose matrix is drawn, a pixel for each pair.
const MOST_IN_PICTURE: usize = 2000;
/// Share of a row from which the blue of a hit is dark enough for white digits on light pages. With it every digit has a contrast
/// of at least 4.5 : 1.
const STRONG: f64 = 0.87;

/// Precision, recall and F1 of every class.
pub fn scores(facts: &Facts) -> String {
    let Some(evaluation) = &facts.evaluation else { return String::new() };
    let mut scores = class_scores(&evaluation.confusion);
    scores.retain(|score| score.images > 0 || score.precision.is_finite());
    let mut out = String::from(
        "<p class=\"quiet\">Precision: of the images taken for a class, how many are of it. Recall: of the images of a class, how many are \
         recognised. F1 is their harmonic mean.</p>\n",
    );
    let average = macro_average(&scores);
    if scores.len() <= MOST_IN_TABLE {
        out.push_str(&table(facts, &scores, Some(average)));
        return out;
    }
    let mut worst = scores.clone();
    worst.sort_by(|a, b| a.f1.total_cmp(&b.f1));
    worst.truncate(WORST);
    let _ = writeln!(out, "<h3>The {WORST} classes with the lowest F1</h3>\n{}", table(facts, &worst, None));
    let count = thousands(scores.len() as u64);
    let _ = writeln!(out, "<details><summary>All {count} classes</summary>\n{}</details>", table(facts, &scores, Some(average)));
    out
}

fn table(facts: &Facts, scores: &[ClassScore], average: Option<[f64; 3]>) -> String {
    let mut out = String::from("<div class=\"scroll\"><table>");
    out.push_str(&table_head(&[
        Column("class", true),
        Column("images", false),
        Column("precision", false),
        Column("recall", false),
        Column("F1", false),
        Column("most often taken for", true),
    ]));
    out.push_str("<tbody>\n");
    for score in scores {
        out.push_str("<tr>");
        out.push_str(&name_cell(&facts.class(score.class)));
        let _ = write!(out, "<td>{}</td>", thousands(score.images));
        for value in [score.precision, score.recall, score.f1] {
            let share = if value.is_finite() { value * 100.0 } else { 0.0 };
            let _ = write!(out, "<td class=\"bar\" style=\"--share:{share:.1}%\">{}</td>", percent(value));
        }
        out.push_str(&match score.mistaken_for {
            Some((other, count)) => name_cell(&format!("{} ({})", facts.class(other), percent(count as f64 / score.images as f64))),
            None => name_cell("-"),
        });
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>");
    if let Some(average) = average {
        let cells: String = average.iter().map(|value| format!("<td>{}</td>", percent(*value))).collect();
        let images: u64 = scores.iter().map(|score| score.images).sum();
        let _ = write!(
            out,
            "<tfoot><tr><th scope=\"row\" class=\"name\">mean of the classes</th><td>{}</td>{cells}<td></td></tr></tfoot>",
            thousands(images)
        );
    }
    out.push_str("</table></div>\n");
    out
}

/// The confusion matrix in numbers; for many classes as a picture, with a list of the commonest confusions.
pub fn confusions(facts: &Facts) -> String {
    let Some(evaluation) = &facts.evaluation else { return String::new() };
    let confusion = &evaluation.confusion;
    if confusion.len() <= MOST_IN_TABLE {
        return matrix(facts, confusion);
    }
    let mut out = String::new();
    if confusion.len() <= MOST_IN_PICTURE {
        let _ = writeln!(
            out,
            "<p class=\"quiet\">A row for each true class from the top, a column for each answer from the left, in the order of the classes; \
             the brighter, the larger the share of the row. Hits are blue, mistakes orange.</p>\n\
             <img class=\"matrix\" src=\"{}\" alt=\"confusion matrix of {} classes\">",
            picture::matrix(confusion),
            confusion.len()
        );
    }
    let found = commonest_confusions(confusion, CONFUSIONS);
    if found.is_empty() {
        out.push_str("<p>There are none: every test image is recognised.</p>\n");
        return out;
    }
    out.push_str("<h3>The commonest</h3>\n<div class=\"scroll\"><table>");
    out.push_str(&table_head(&[Column("class", true), Column("taken for", true), Column("images", false), Column("of the class", false)]));
    out.push_str("<tbody>\n");
    for pair in found {
        let names = name_cell(&facts.class(pair.label)) + &name_cell(&facts.class(pair.predicted));
        let _ = writeln!(out, "<tr>{names}<td>{}</td><td>{}</td></tr>", thousands(pair.count), percent(pair.share));
    }
    out.push_str("</tbody></table></div>\n");
    out
}

fn matrix(facts: &Facts, confusion: &[Vec<u64>]) -> String {
    let mut out = String::from(
        "<p class=\"quiet\">A row for each true class, a column for each answer, in images. Hits are blue, mistakes orange; the stronger, the \
         larger the share of the row.</p>\n<div class=\"scroll\"><table class=\"confusion\"><thead><tr><td></td>",
    );
    for class in 0..confusion.len() {
        let name = facts.class(class);
        let name = Escaped(&name);
        let _ = write!(out, "<th scope=\"col\" title=\"{name}\"><span>{name}</span></th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for (label, row) in confusion.iter().enumerate() {
        let name = facts.class(label);
        let _ = write!(out, "<tr><th scope=\"row\" class=\"name\" title=\"{0}\">{0}</th>", Escaped(&name));
        let images: u64 = row.iter().sum();
        for (predicted, &count) in row.iter().enumerate() {
            if count == 0 {
                out.push_str("<td></td>");
                continue;
            }
            let share = count as f64 / images as f64;
            let kind = if predicted == label { "hit" } else { "mistake" };
            let strong = if predicted == label && share >= STRONG { " strong" } else { "" };
            let other = facts.class(predicted);
            let _ = write!(
                out,
                "<td class=\"{kind}{strong}\" style=\"--share:{share:.3}\" title=\"{} taken for {}: {} of {}, {}\">{}</td>",
                Escaped(&name),
                Escaped(&other),
                thousands(count),
                thousands(images),
                percent(share),
                thousands(count)
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// The surest mistakes as pictures.
pub fn mistakes(facts: &Facts) -> String {
    if facts.evaluation.is_none() {
        return String::new();
    }
    if facts.mistakes.is_empty() {
        return "<p>There are none: every test image is recognised.</p>\n".into();
    }
    let mut out = String::from(
        "<p class=\"quiet\">Test images with a wrong answer that the model was surest of: often hard pictures, or wrong labels.</p>\n\
         <div class=\"pictures\">\n",
    );
    for Mistake { image, prediction, picture } in &facts.mistakes {
        let (label, answer) = (facts.class(prediction.label as usize), facts.class(prediction.result.predicted));
        let (label, answer) = (Escaped(&label), Escaped(&answer));
        let sure = percent(prediction.result.confidence.into());
        let right = percent((-f64::from(prediction.result.loss)).exp());
        let _ = writeln!(
            out,
            "<figure><img src=\"{picture}\" alt=\"{label}, taken for {answer}\" loading=\"lazy\">\
             <figcaption title=\"test image {image}; {label}: {right}\"><b>{label}</b><br>taken for {answer}, <span class=\"whole\">{sure}</span></figcaption></figure>"
        );
    }
    out.push_str("</div>\n");
    out
}
