//! Draws the dashboard.

use super::state::{Curve, State};
use crate::cli::format;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, Gauge, GraphType, Paragraph, Wrap};

/// Columns of a figure.
const FIGURE: u16 = 15;
/// Least size of a chart that says anything.
const CHART: (u16, u16) = (24, 7);

/// Styles, with colours or without.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    has_colour: bool,
}

impl Theme {
    /// Without colours, curves differ by their dots.
    pub fn new(has_colour: bool) -> Self {
        Theme { has_colour }
    }

    fn colour(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn quiet(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn training(self) -> Style {
        self.colour(Color::Yellow)
    }

    fn test(self) -> Style {
        self.colour(Color::LightBlue)
    }
}

/// Draws `state`, `elapsed` seconds after this session's first step, into the whole frame.
pub fn draw(frame: &mut Frame<'_>, state: &State, elapsed: f64, theme: Theme) {
    let area = frame.area();
    if area.height < 6 || area.width < CHART.0 {
        frame.render_widget(Paragraph::new(short(state, elapsed)).wrap(Wrap { trim: true }), area);
        return;
    }
    let notes = if area.height >= 18 && !state.notes.is_empty() { (state.notes.len() as u16 + 1).min(area.height / 5) } else { 0 };
    let heights =
        [1, 1, 3].map(Constraint::Length).into_iter().chain([Constraint::Min(0), Constraint::Length(notes), Constraint::Length(1)]);
    let [top, bar, row, charts, bottom, help] = Layout::vertical(heights).areas(area);
    frame.render_widget(heading(state, theme), top);
    frame.render_widget(progress(state, elapsed, theme), bar);
    figures(frame, row, state, elapsed, theme);
    draw_charts(frame, charts, state, theme);
    draw_notes(frame, bottom, state, theme);
    let hint = if state.is_stopping { "saving and stopping; q or Ctrl-C again stops at once" } else { "q or Ctrl-C: save and stop" };
    frame.render_widget(Paragraph::new(hint).style(theme.quiet()), help);
}

/// All that a very small terminal has room for.
fn short(state: &State, elapsed: f64) -> String {
    let Some(latest) = state.latest else { return format!("{} starting", state.title) };
    let left = state.seconds_left(elapsed).map_or(String::new(), |left| format!(" {} left", format::duration(left)));
    format!("{:.0} % loss {:.4} accuracy {}{left}", state.progress() * 100.0, latest.loss, format::percent(latest.accuracy))
}

fn heading(state: &State, theme: Theme) -> Paragraph<'_> {
    let mut spans = vec![Span::styled(state.title.as_str(), theme.strong())];
    if let Some(run) = &state.run {
        spans.push(Span::styled(format!("  {}, files go to {}", run.adapter, run.out.display()), theme.quiet()));
    }
    Paragraph::new(Line::from(spans))
}

fn progress(state: &State, elapsed: f64, theme: Theme) -> Gauge<'static> {
    let label = match (&state.run, state.latest) {
        (None, _) => "preparing".to_owned(),
        (Some(_), _) if state.is_stopping => "stopping after this step".to_owned(),
        (Some(run), latest) => {
            let epoch = latest.map_or(state.epochs_done() as u64 + 1, |latest| latest.epoch);
            let left = state.seconds_left(elapsed).map_or(String::new(), |left| format!("  {} left", format::duration(left)));
            format!("epoch {epoch}/{}  {:.1} %{left}", run.epochs, state.progress() * 100.0)
        }
    };
    Gauge::default().ratio(state.progress()).label(label).gauge_style(theme.colour(Color::Blue)).use_unicode(true)
}

fn figures(frame: &mut Frame<'_>, area: Rect, state: &State, elapsed: f64, theme: Theme) {
    let latest = |value: &dyn Fn(&crate::train::trainer::StepReport) -> String| state.latest.as_ref().map_or("-".into(), value);
    let (done, all) = state.steps();
    let all_figures = [
        ("loss", latest(&|report| format!("{:.4}", report.loss))),
        ("accuracy", latest(&|report| format::percent(report.accuracy))),
        ("best on test", state.best.map_or("-".into(), |(best, _)| format::percent(best))),
        ("time left", state.seconds_left(elapsed).map_or("-".into(), format::duration)),
        ("images/s", latest(&|report| format::thousands(report.images_per_s as u64))),
        ("learning rate", latest(&|report| format!("{:.2e}", report.lr))),
        ("device memory", state.run.as_ref().map_or("-".into(), |run| format::bytes(run.memory_bytes))),
        ("elapsed", format::duration(elapsed)),
        ("step", format!("{}/{}", format::thousands(done), format::thousands(all))),
    ];
    for (number, (name, value)) in all_figures.iter().enumerate() {
        let left = number as u16 * FIGURE;
        if left + FIGURE > area.width {
            break;
        }
        let cell = Rect { x: area.x + left, y: area.y, width: FIGURE, height: area.height };
        let lines = vec![Line::styled(*name, theme.quiet()), Line::styled(value.as_str(), theme.strong())];
        frame.render_widget(Paragraph::new(lines), cell);
    }
}

fn draw_charts(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    if area.width < CHART.0 || area.height < CHART.1 {
        return;
    }
    let is_wide = area.width >= 2 * CHART.0 + 12;
    let areas = match (is_wide, area.height >= 2 * CHART.1) {
        (true, _) => Layout::horizontal([Constraint::Fill(1); 2]).spacing(1).areas::<2>(area).to_vec(),
        (false, true) => Layout::vertical([Constraint::Fill(1); 2]).areas::<2>(area).to_vec(),
        (false, false) => vec![area],
    };
    // Losses fall by orders of magnitude.
    let logarithms = |curve: &Curve| curve.iter().map(|(x, y)| (*x, y.max(1e-9).log10())).collect::<Curve>();
    let loss = [logarithms(&state.step_loss), logarithms(&state.loss[0]), logarithms(&state.loss[1])];
    let exact = |value: f64| format!("{:.3}", 10f64.powf(value));
    let percent = |value: f64| format!("{value:.1} %");
    let empty = Curve::new();
    let accuracy = [&empty, &state.accuracy[0], &state.accuracy[1]];
    let plots = [("loss", [&loss[0], &loss[1], &loss[2]], &exact as &dyn Fn(f64) -> String), ("accuracy", accuracy, &percent)];
    for ((name, curves, text), area) in plots.into_iter().zip(areas) {
        chart(frame, area, name, curves, state.epochs_done(), text, theme);
    }
}

/// Curves by step, of training and of test over epochs.
fn chart(frame: &mut Frame<'_>, area: Rect, name: &str, curves: [&Curve; 3], end: f64, text: &dyn Fn(f64) -> String, theme: Theme) {
    let looks = [
        ("by step", theme.quiet(), Marker::Braille),
        ("training", theme.training(), Marker::Braille),
        ("test", theme.test(), if theme.has_colour { Marker::Braille } else { Marker::Dot }),
    ];
    let mut title = vec![Span::styled(format!(" {name} "), theme.strong())];
    for (curve, (name, style, _)) in curves.iter().zip(&looks) {
        if let Some((_, last)) = curve.last() {
            title.push(Span::styled(format!(" {name} {} ", text(*last)), *style));
        }
    }
    let datasets = curves
        .iter()
        .zip(looks)
        .map(|(curve, (_, style, marker))| Dataset::default().marker(marker).graph_type(GraphType::Line).style(style).data(curve))
        .collect();
    let values = || curves.iter().flat_map(|curve| curve.iter().map(|point| point.1));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let [low, high] = match high - low {
        range if range > 1e-9 => [low, high],
        range if range >= 0.0 => [low - 0.5, high + 0.5],
        // No points yet.
        _ => [0.0, 1.0],
    };
    let end = end.max(1e-3);
    let has_points = curves.iter().any(|curve| !curve.is_empty());
    let labels = if has_points { vec![text(low), text((low + high) / 2.0), text(high)] } else { Vec::new() };
    let chart = Chart::new(datasets)
        .block(Block::new().borders(Borders::TOP).border_style(theme.quiet()).title(Line::from(title)))
        .legend_position(None)
        .x_axis(Axis::default().bounds([0.0, end]).labels(["0".to_owned(), format!("epoch {end:.1}")]).style(theme.quiet()))
        .y_axis(Axis::default().bounds([low, high]).labels(labels).style(theme.quiet()));
    frame.render_widget(chart, area);
}

fn draw_notes(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    if area.height < 2 {
        return;
    }
    let first = state.notes.len().saturating_sub(usize::from(area.height) - 1);
    let lines: Vec<Line<'_>> = state.notes[first..].iter().map(|note| Line::raw(note.as_str())).collect();
    let block = Block::new().borders(Borders::TOP).border_style(theme.quiet()).title(" notes ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
