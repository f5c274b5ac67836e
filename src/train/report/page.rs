//! The page: its frame, what a run came to, curves, filters, recipe and machine.

use super::html::{Column, Escaped, table_head};
use super::{FILTERS, Facts, classes};
use crate::train::format::{duration, percent, shape, thousands};
use crate::train::metrics::EpochLine;
use crate::train::plot;
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");

/// A part of the page: its anchor, heading and content. Parts without content are left out.
struct Section {
    anchor: &'static str,
    heading: &'static str,
    content: String,
}

/// The whole page.
pub fn page(facts: &Facts) -> String {
    let section = |anchor, heading, content| Section { anchor, heading, content };
    let sections = [
        section("curves", "Curves", curves(facts)),
        section("classes", "Classes", classes::scores(facts)),
        section("confusions", "Confusions", classes::confusions(facts)),
        section("mistakes", "Surest mistakes", classes::mistakes(facts)),
        section("filters", "First layer", filters(facts)),
        section("recipe", "Recipe", recipe(facts)),
        section("machine", "Machine", machine(facts)),
    ];
    let sections: Vec<Section> = sections.into_iter().filter(|section| !section.content.is_empty()).collect();
    let title = format!("{} on {}", facts.config.model, facts.data);
    let title = Escaped(&title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    let _ = writeln!(out, "<p class=\"quiet\">{}</p>", Escaped(&introduction(facts)));
    out.push_str("<nav>");
    for Section { anchor, heading, .. } in &sections {
        let _ = write!(out, "<a href=\"#{anchor}\">{heading}</a>");
    }
    out.push_str("</nav>\n");
    out.push_str(&overview(facts));
    for Section { anchor, heading, content } in &sections {
        let _ = write!(out, "<section id=\"{anchor}\">\n<h2>{heading}</h2>\n{content}</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn introduction(facts: &Facts) -> String {
    let [train, test] = facts.images.map(|count| thousands(count as u64));
    let tested = if facts.images[1] > 0 { format!("tested on {test}") } else { "without test images".into() };
    let parameters = thousands(facts.parameters as u64);
    format!("{parameters} parameters, trained on {train} images of {} classes, {tested}.", thousands(facts.classes.len() as u64))
}

/// The figures that matter most.
fn overview(facts: &Facts) -> String {
    let mut tiles: Vec<(&str, String, String)> = Vec::new();
    let epochs = facts.config.epochs;
    let done = facts.epochs().count();
    if let Some(evaluation) = &facts.evaluation {
        let whose = match facts.best_epoch() {
            Some(best) => format!("best epoch, {} of {epochs}", best.epoch),
            None => format!("{}, before the first epoch's end", facts.weights),
        };
        let right = (0..evaluation.confusion.len()).map(|class| evaluation.confusion[class][class]).sum();
        let counts = format!("{} of {} images", thousands(right), thousands(evaluation.images as u64));
        tiles.push(("Test accuracy", percent(evaluation.top1), format!("{whose}; {counts}")));
        if facts.classes.len() > 5 {
            tiles.push(("Top 5 accuracy", percent(evaluation.top5), "test images".into()));
        }
        tiles.push(("Test loss", format!("{:.4}", evaluation.loss), format!("guessing: {:.4}", (facts.classes.len() as f64).ln())));
    }
    if let Some(last) = facts.epochs().last() {
        tiles.push(("Training accuracy", percent(last.train_acc), format!("epoch {}, while learning", last.epoch)));
        tiles.push(("Training loss", format!("{:.4}", last.train_loss), format!("epoch {}, while learning", last.epoch)));
        let seconds: f64 = facts.epochs().map(|line| line.seconds).filter(|seconds| seconds.is_finite()).sum();
        tiles.push(("Time", duration(seconds), format!("{done} of {epochs} epochs, tests included")));
    }
    let mut out = String::from("<dl class=\"tiles\">\n");
    for (name, value, note) in tiles {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}<small>{}</small></dd></div>", Escaped(&value), Escaped(&note));
    }
    out.push_str("</dl>\n");
    if facts.evaluation.is_none() {
        out.push_str("<p>There are no test images, so nothing says how well the model does on pictures it has not seen.</p>\n");
    }
    out
}

fn curves(facts: &Facts) -> String {
    let figures = plot::figures(&facts.lines, facts.steps_per_epoch);
    if figures.is_empty() {
        return String::new();
    }
    // Inside a page the name space is known.
    let inline = |figure: &String| figure.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    let mut out = String::from("<div class=\"curves\">\n");
    figures.iter().for_each(|figure| out.push_str(&inline(figure)));
    out.push_str("</div>\n<details><summary>Every epoch in figures</summary>\n<div class=\"scroll\"><table>");
    let headings = ["epoch", "training loss", "training accuracy", "test loss", "test accuracy", "time"];
    out.push_str(&table_head(&headings.map(|heading| Column(heading, false))));
    out.push_str("<tbody>\n");
    let best = facts.best_epoch().map(|line| line.epoch);
    for line in facts.epochs() {
        let class = if Some(line.epoch) == best { " class=\"best\" title=\"the best\"" } else { "" };
        let EpochLine { epoch, train_loss, train_acc, test_loss, test_acc, seconds, .. } = line;
        let cells = [loss(*train_loss), percent(*train_acc), loss(*test_loss), percent(*test_acc), duration(*seconds)];
        let _ = write!(out, "<tr{class}><td>{epoch}</td>");
        cells.iter().for_each(|cell| {
            let _ = write!(out, "<td>{cell}</td>");
        });
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div></details>\n");
    out
}

fn loss(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "-".into() }
}

fn filters(facts: &Facts) -> String {
    if facts.filters.is_empty() {
        return String::new();
    }
    let [channels, height, width] = facts.filter_shape;
    let colours = match channels {
        1 => "Middle grey is zero, brighter is positive",
        3 => "Red, green and blue as in pictures; middle grey is zero",
        _ => "The mean over the channels: middle grey is zero, brighter is positive",
    };
    let count = if facts.filters.len() == FILTERS { format!("The first {FILTERS}") } else { format!("All {}", facts.filters.len()) };
    let size = shape(&[channels, height, width]);
    let mut out =
        format!("<p class=\"quiet\">{count} filters of {size}. {colours}; each has its own scale.</p>\n<div class=\"filters\">\n");
    for (number, address) in facts.filters.iter().enumerate() {
        let _ = writeln!(out, "<img src=\"{address}\" alt=\"filter {number}\" title=\"filter {number}\" width=\"48\" height=\"48\">");
    }
    out.push_str("</div>\n");
    out
}

fn recipe(facts: &Facts) -> String {
    format!(
        "<p class=\"quiet\">config.toml of the run: everything that decides what it learns, besides the device.</p>\n<pre>{}</pre>\n",
        Escaped(facts.config_text.trim_end())
    )
}

fn machine(facts: &Facts) -> String {
    let mut out = String::new();
    for (number, session) in facts.sessions.iter().enumerate() {
        if facts.sessions.len() > 1 {
            let from = if session.first_step == 0 { String::new() } else { format!(", after step {}", thousands(session.first_step)) };
            let _ = writeln!(out, "<h3>Session {}{from}</h3>", number + 1);
        }
        let rows = [
            ("started", &session.started),
            ("command", &session.command),
            ("adapter", &format!("{} ({})", session.adapter, session.kind)),
            ("driver", &format!("{}, through {}", session.driver, session.backend)),
            ("system", &session.system),
            ("nin-wgpu", &session.version),
        ];
        out.push_str("<div class=\"scroll\"><table class=\"facts\"><tbody>\n");
        for (name, value) in rows {
            let _ = writeln!(out, "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", Escaped(value));
        }
        out.push_str("</tbody></table></div>\n");
    }
    out
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
