//! Every drawing is well-formed XML that holds the curves it should.

use roxmltree::Document;

use super::super::metrics::tests::sample;
use super::*;

/// A run that falls with noise; the noise is a fixed sequence.
fn run(steps: u64, aligned: bool) -> Vec<StepMetrics> {
    let noise = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24) - 0.5;
    (0..steps)
        .map(|step| {
            let t = step as f64 / steps as f64;
            let loss_lm = 2.0 + 4.9 * (-4.0 * t).exp() + 0.5 * noise(step);
            let loss_vra = if aligned { -0.75 * (1.0 - (-3.0 * t).exp()) + 0.05 * noise(step + 7777) } else { 0.0 };
            StepMetrics { loss_lm, loss_vra, loss: loss_lm + 0.5 * loss_vra, ..sample(step) }
        })
        .collect()
}

fn check(svg: &str, labels: &[&str]) {
    let document = Document::parse(svg).unwrap_or_else(|error| panic!("{error}:\n{svg}"));
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    let height =
        if labels.contains(&"alignment (VRA)") && labels.contains(&"reconstruction (ROSS)") { 664 } else { 500 };
    assert_eq!(root.attribute("viewBox"), Some(&*format!("0 0 800 {height}")));
    let titles: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name((root.tag_name().namespace().unwrap(), "g")))
        .filter_map(|group| group.first_element_child()?.text())
        .collect();
    assert_eq!(titles, labels);
    for node in document.descendants().filter(|node| node.is_element()) {
        for attribute in node.attributes() {
            let value = attribute.value();
            assert!(!value.contains("NaN") && !value.contains("inf"), "{}: {value}", attribute.name());
        }
    }
    for node in document.descendants().filter(|node| node.tag_name().name() == "path") {
        let path = node.attribute("d").unwrap();
        let numbers = path.split(['M', 'L', ' ']).filter(|n| !n.is_empty()).map(|n| n.parse::<f64>().unwrap());
        assert!(numbers.into_iter().all(|n| (0.0..=WIDTH).contains(&n)), "{path}");
    }
}

#[test]
fn both_curves_and_the_total_are_drawn() {
    for steps in [2, 12, 60, 5198] {
        let svg = loss_svg(&run(steps, true), "demo");
        check(&svg, &["total", "language model", "alignment (VRA)"]);
        assert!(svg.len() < 200_000, "{steps} steps: {} bytes", svg.len());
    }
}

#[test]
fn without_alignment_there_is_one_panel() {
    check(&loss_svg(&run(60, false), "demo"), &["language model"]);
}

#[test]
fn reconstruction_has_a_panel_beside_or_without_alignment() {
    let reconstructed = |aligned| {
        let steps = run(60, aligned).into_iter().map(|m| StepMetrics { loss_ross: 1.0 / (m.step + 1) as f64, ..m });
        loss_svg(&steps.collect::<Vec<_>>(), "demo")
    };
    check(&reconstructed(true), &["total", "language model", "alignment (VRA)", "reconstruction (ROSS)"]);
    check(&reconstructed(false), &["total", "language model", "reconstruction (ROSS)"]);
}

#[test]
fn evaluations_are_drawn_beside_what_is_learnt() {
    let evaluated = |aligned| {
        let mut steps = run(60, aligned);
        for step in steps.iter_mut().skip(9).step_by(10) {
            let (loss_lm, loss_vra) = (step.loss_lm + 0.2, step.loss_vra);
            let loss = loss_lm + 0.5 * loss_vra;
            step.validation = Some(Validation {
                loss,
                loss_lm,
                loss_vra,
                loss_ross: 0.0,
                samples: 9,
                supervised_tokens: 99,
                best: true,
            });
        }
        loss_svg(&steps, "demo")
    };
    check(&evaluated(true), &["total", "language model", "validation", "alignment (VRA)", "validation"]);
    check(&evaluated(false), &["language model", "validation"]);
}

#[test]
fn odd_runs_are_drawn_too() {
    check(&loss_svg(&[], "empty"), &["language model"]);
    check(&loss_svg(&run(1, true), "one"), &["total", "language model", "alignment (VRA)"]);
    let broken = vec![StepMetrics { loss: f64::NAN, loss_lm: f64::NAN, ..sample(0) }; 3];
    check(&loss_svg(&broken, "broken"), &["total", "language model", "alignment (VRA)"]);
}

#[test]
fn names_are_escaped() {
    let svg = loss_svg(&run(2, true), "a<b>&\"c\u{1}");
    check(&svg, &["total", "language model", "alignment (VRA)"]);
    assert!(svg.contains("a&lt;b&gt;&amp;&quot;c?"));
}
