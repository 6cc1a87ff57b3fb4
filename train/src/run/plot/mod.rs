//! `loss.svg`: the curves of a run, readable in a browser, a file manager's preview or a paper draft.
//!
//! Two panels share the step axis: the language-model loss with the total above, the alignment loss below. Each curve
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

/// Size of the drawing in pixels.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 500.0;
/// The panels lie between these; what is left and right holds the labels.
const LEFT: f64 = 66.0;
const RIGHT: f64 = WIDTH - 24.0;

const LM: &str = "#2563eb";
const VRA: &str = "#ea580c";
const TOTAL: &str = "#64748b";
const VALIDATION: &str = "#059669";

/// The drawing of a run called `name`, as a complete SVG document. The alignment panel is left out where nothing was
/// aligned; without any step the axes stay empty.
pub fn loss_svg(steps: &[StepMetrics], name: &str) -> String {
    let curve = |value: fn(&StepMetrics) -> f64| Curve::new(steps.iter().map(|m| (m.step as f64, value(m))));
    let last = steps.last().map_or(1.0, |m| m.step as f64).max(1.0);
    let aligned = steps.iter().any(|m| m.loss_vra != 0.0);

    let lm = Series { label: "language model", color: LM, dashed: false, curve: curve(|m| m.loss_lm) };
    let total = Series { label: "total", color: TOTAL, dashed: true, curve: curve(|m| m.loss) };
    let vra = Series { label: "alignment (VRA)", color: VRA, dashed: false, curve: curve(aligned_only) };
    let validation = |value: fn(&Validation) -> f64| {
        let points = steps.iter().filter_map(|m| Some((m.step as f64, value(m.validation.as_ref()?))));
        let curve = Curve::new(points);
        let is_there = !curve.points.is_empty();
        is_there.then_some(Series { label: "validation", color: VALIDATION, dashed: false, curve })
    };
    let held_out_lm = validation(|v| v.loss_lm);
    let held_out_vra = validation(|v| if v.loss_vra == 0.0 { f64::NAN } else { v.loss_vra });
    let panels = if aligned {
        let (losses, alignment) = ([total, lm].into_iter().chain(held_out_lm), [vra].into_iter().chain(held_out_vra));
        vec![
            Panel { title: "Loss", top: 108.0, bottom: 286.0, series: losses.collect() },
            Panel { title: "Alignment loss", top: 340.0, bottom: 450.0, series: alignment.collect() },
        ]
    } else {
        let series = [lm].into_iter().chain(held_out_lm).collect();
        vec![Panel { title: "Loss", top: 108.0, bottom: 450.0, series }]
    };

    let mut svg = String::new();
    header(&mut svg, steps, name);
    for panel in &panels {
        panel.draw(&mut svg, (LEFT, RIGHT), last);
    }
    if let Some(lowest) = panels.last() {
        lowest.draw_steps(&mut svg, (LEFT, RIGHT), last);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The alignment loss of steps that aligned something. A step of text-only samples reports 0, which is no cosine.
fn aligned_only(metrics: &StepMetrics) -> f64 {
    if metrics.loss_vra == 0.0 { f64::NAN } else { metrics.loss_vra }
}

fn header(svg: &mut String, steps: &[StepMetrics], name: &str) {
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" font-family=\"Inter, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', \
         Arial, 'DejaVu Sans', sans-serif\" font-size=\"12\">\n\
         <title>Training loss of {name}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
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
