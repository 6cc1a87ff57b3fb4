//! A pair of axes with curves and their legend.

use std::fmt::Write;

use super::axis::Axis;
use super::curve::Curve;

const GRID: &str = "#e8ecf1";
const AXIS: &str = "#94a3b8";
const LABEL: &str = "#64748b";
const INK: &str = "#0f172a";

/// A named curve.
pub(super) struct Series {
    pub(super) label: &'static str,
    pub(super) color: &'static str,
    pub(super) dashed: bool,
    pub(super) curve: Curve,
}

/// Curves over a common value axis, between two pixel rows.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) series: Vec<Series>,
}

impl Panel {
    /// Draws grid, curves and legend between the pixel columns `columns`, for steps from 0 to `last`.
    pub(super) fn draw(&self, svg: &mut String, columns: (f64, f64), last: f64) {
        let steps = step_axis(columns, last);
        let values = self.value_axis();
        self.draw_grid(svg, columns, &steps, &values);
        for series in &self.series {
            draw_series(svg, series, &steps, &values);
        }
        self.draw_legend(svg, columns);
    }

    /// Draws the numbers of the step axis below the panel.
    pub(super) fn draw_steps(&self, svg: &mut String, columns: (f64, f64), last: f64) {
        let axis = step_axis(columns, last);
        for tick in axis.ticks() {
            let (x, y) = (axis.pixel(tick), self.bottom + 19.0);
            let label = axis.label(tick);
            let _ =
                writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"{LABEL}\">{label}</text>");
        }
        let (x, y) = ((columns.0 + columns.1) / 2.0, self.bottom + 39.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"{LABEL}\">step</text>");
    }

    fn value_axis(&self) -> Axis {
        let ranges = self.series.iter().map(|series| series.curve.range());
        let (low, high) = ranges.fold((f64::INFINITY, f64::NEG_INFINITY), |a, b| (a.0.min(b.0), a.1.max(b.1)));
        let ticks = ((self.bottom - self.top) / 40.0).round();
        Axis::rounded(low, high, (self.bottom, self.top), ticks)
    }

    fn draw_grid(&self, svg: &mut String, (left, right): (f64, f64), steps: &Axis, values: &Axis) {
        let (top, bottom) = (self.top, self.bottom);
        for tick in values.ticks() {
            let y = values.pixel(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{LABEL}\">{}</text>",
                left - 9.0,
                y + 4.0,
                values.label(tick),
            );
        }
        for tick in steps.ticks() {
            let x = steps.pixel(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom:.1}\" y2=\"{:.1}\" stroke=\"{AXIS}\"/>",
                bottom + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\" stroke=\"{AXIS}\"/>\n\
             <text x=\"24\" y=\"{:.1}\" font-weight=\"600\" fill=\"{INK}\">{}</text>",
            top - 16.0,
            self.title,
        );
    }

    /// Legend entries end at the right edge, above the panel: a line, the name, the last value.
    fn draw_legend(&self, svg: &mut String, (_, right): (f64, f64)) {
        let y = self.top - 16.0;
        let mut x = right;
        for series in self.series.iter().rev() {
            let value = match series.curve.smoothed().points.last() {
                Some((_, value)) => format!("{value:.3}").replace('-', "\u{2212}"),
                None => "no value".into(),
            };
            let dash = if series.dashed { " stroke-dasharray=\"5 3\"" } else { "" };
            // Without font metrics, the width of a letter is estimated on the generous side.
            let text_width = 6.9 * (series.label.chars().count() + 2 + value.chars().count()) as f64;
            let start = x - text_width;
            let _ = writeln!(
                svg,
                "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{line_y:.1}\" y2=\"{line_y:.1}\" stroke=\"{color}\" \
                 stroke-width=\"2.4\" stroke-linecap=\"round\"{dash}/>\
                 <text x=\"{start:.1}\" y=\"{y:.1}\" fill=\"{INK}\">{}<tspan dx=\"7\" font-weight=\"600\" \
                 fill=\"{color}\">{value}</tspan></text>",
                start - 30.0,
                start - 9.0,
                series.label,
                line_y = y - 4.0,
                color = series.color,
            );
            x = start - 48.0;
        }
    }
}

fn step_axis(columns: (f64, f64), last: f64) -> Axis {
    Axis::steps(last, columns, 10.0)
}

/// The measured points faintly and the fit strongly; a short run shows its points as dots.
fn draw_series(svg: &mut String, series: &Series, steps: &Axis, values: &Axis) {
    const DOTS: usize = 40;
    let path = |curve: &Curve| {
        let mut path = String::new();
        for &(step, value) in &curve.points {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", steps.pixel(step), values.pixel(value));
        }
        path
    };
    let color = series.color;
    let dash = if series.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
    let _ = writeln!(
        svg,
        "<g fill=\"none\" stroke=\"{color}\" stroke-linejoin=\"round\" stroke-linecap=\"round\">\
         <title>{}</title>",
        series.label
    );
    let smooth = series.curve.smoothed();
    if smooth != series.curve && !series.dashed {
        let raw = path(&series.curve.thinned(350));
        let _ = writeln!(svg, "<path d=\"{raw}\" stroke-width=\"1\" stroke-opacity=\"0.3\"/>");
    }
    let _ = writeln!(svg, "<path d=\"{}\" stroke-width=\"2\"{dash}/>", path(&smooth.thinned(350)));
    if series.curve.points.len() <= DOTS && !series.dashed {
        for &(step, value) in &series.curve.points {
            let (x, y) = (steps.pixel(step), values.pixel(value));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\" fill=\"{color}\" stroke=\"none\"/>");
        }
    }
    svg.push_str("</g>\n");
}
