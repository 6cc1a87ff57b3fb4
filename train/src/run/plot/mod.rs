//! `loss.svg`: the curves of a run, readable in a browser, a file manager's preview or a paper draft.
//!
//! The panels share the step axis: the language-model loss with the total above, alignment and reconstruction loss below. Each curve
//! is drawn twice, faint as measured and strong as a local linear fit, which follows a falling curve without lagging
//! behind it as a moving average would. Evaluations on other samples join the panel of their loss.

mod axis;
mod curve;
mod panel;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::metrics::{StepMetrics, Validation};
use super::progress::{count, duration};
use curve::Curve;
use panel::{Panel, Series};

/// Size of the drawing in pixels; from the third panel on it is higher.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 500.0;
/// Height of a panel below the first one, and from one such panel to the next.
const LOWER: f64 = 110.0;
const DISTANCE: f64 = 164.0;
/// The panels lie between these; what is left and right holds the labels.
const LEFT: f64 = 66.0;
const RIGHT: f64 = WIDTH - 24.0;

const LM: &str = "#2563eb";
const VRA: &str = "#ea580c";
const ROSS: &str = "#0d9488";
const TOTAL: &str = "#64748b";
const VALIDATION: &str = "#059669";

/// The drawing of a run called `name`, as a complete SVG document. The panels of alignment and reconstruction are left out
/// where there was none; without any step the axes stay empty.
pub fn loss_svg(steps: &[StepMetrics], name: &str) -> String {
    let curve = |value: fn(&StepMetrics) -> f64| Curve::new(steps.iter().map(|m| (m.step as f64, value(m))));
    let last = steps.last().map_or(1.0, |m| m.step as f64).max(1.0);
    let lm = Series { label: "language model", color: LM, dashed: false, curve: curve(|m| m.loss_lm) };
    let total = Series { label: "total", color: TOTAL, dashed: true, curve: curve(|m| m.loss) };
    let vra = Series { label: "alignment (VRA)", color: VRA, dashed: false, curve: curve(|m| where_any(m.loss_vra)) };
    let ross =
        Series { label: "reconstruction (ROSS)", color: ROSS, dashed: false, curve: curve(|m| where_any(m.loss_ross)) };
    let validation = |value: fn(&Validation) -> f64| {
        let points = steps.iter().filter_map(|m| Some((m.step as f64, value(m.validation.as_ref()?))));
        let curve = Curve::new(points);
        let is_there = curve.points.iter().any(|(_, loss)| loss.is_finite());
        is_there.then_some(Series { label: "validation", color: VALIDATION, dashed: false, curve })
    };
    let is_there = |loss: fn(&StepMetrics) -> f64| steps.iter().any(|m| loss(m) != 0.0);
    let mut lower = Vec::new();
    for (title, is_there, series, held_out) in [
        ("Alignment loss", is_there(|m| m.loss_vra), vra, validation(|v| where_any(v.loss_vra))),
        ("Reconstruction loss", is_there(|m| m.loss_ross), ross, validation(|v| where_any(v.loss_ross))),
    ] {
        if is_there {
            let top = 340.0 + DISTANCE * lower.len() as f64;
            lower.push(Panel {
                title,
                top,
                bottom: top + LOWER,
                series: [series].into_iter().chain(held_out).collect(),
            });
        }
    }
    let held_out = validation(|v| v.loss_lm);
    let first = match lower.len() {
        0 => Panel { title: "Loss", top: 108.0, bottom: 450.0, series: [lm].into_iter().chain(held_out).collect() },
        _ => Panel {
            title: "Loss",
            top: 108.0,
            bottom: 286.0,
            series: [total, lm].into_iter().chain(held_out).collect(),
        },
    };
    let height = HEIGHT + DISTANCE * lower.len().saturating_sub(1) as f64;
    let panels: Vec<Panel> = [first].into_iter().chain(lower).collect();

    let mut svg = String::new();
    header(&mut svg, steps, name, height);
    for panel in &panels {
        panel.draw(&mut svg, (LEFT, RIGHT), last);
    }
    if let Some(lowest) = panels.last() {
        lowest.draw_steps(&mut svg, (LEFT, RIGHT), last);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The loss of steps that had one. A step of text-only samples reports 0, which is nobody's alignment or reconstruction.
fn where_any(loss: f64) -> f64 {
    if loss == 0.0 { f64::NAN } else { loss }
}

fn header(svg: &mut String, steps: &[StepMetrics], name: &str, height: f64) {
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" font-family=\"Inter, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', \
         Arial, 'DejaVu Sans', sans-serif\" font-size=\"12\">\n\
         <title>Training loss of {name}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"24\" y=\"34\" font-size=\"18\" font-weight=\"600\" fill=\"#0f172a\">{name}</text>\n",
        name = xml(name),
    );
    let seconds: f64 = steps.iter().map(|m| m.seconds).sum();
    let tokens: u64 = steps.iter().map(|m| m.tokens).sum();
    let tokens = if tokens < 1000 { tokens.to_string() } else { count(tokens as f64) };
    let facts = match steps.len() {
        0 => "no step yet".into(),
        1 => "1 step".into(),
        n => format!("{n} steps · {tokens} tokens · {}", duration(seconds)),
    };
    let _ = writeln!(svg, "<text x=\"24\" y=\"54\" fill=\"#64748b\">{facts}</text>");
}

/// Text as XML content; what XML cannot hold becomes a question mark.
fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}
