//! Random graphs: the device, through the whole pipeline, against the f64 interpreter.
//!
//! `VIRAL_SEEDS=1000..2000 cargo test --release --test kernels random` looks at others than the usual ones.

mod make;
mod shrink;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::support::device;
use make::Made;
use viral_compiler::compile::compile_traced;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::ir::LeafKind;
use viral_compiler::passes::{Pass, Remat};
use viral_compiler::tensor::Tensor;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Options, Placement, Target};

/// Largest difference of an element relative to the largest element of the tensor.
const BAR: f64 = 2e-3;
/// The same where values between kernels are rounded to 8 bits: a last digit of f32 may decide in which direction.
const ROUNDED_BAR: f64 = 2e-2;

#[test]
fn random_graphs_agree_with_the_interpreter() {
    let mut failures = Vec::new();
    for seed in seeds() {
        // Most graphs are small; some are long enough for memory to be used again and again.
        let operations = if seed % 8 == 7 { 120 } else { 8 + (seed % 7) as usize * 5 };
        let made = make::graph(seed, operations);
        for (name, options) in variants(seed, &made.graph) {
            if let Err(error) = check(&made, &options) {
                let small = shrink::smallest(seed, operations, &|made| check(made, &options).is_err());
                let error = check(&small, &options).err().unwrap_or(error);
                failures.push(format!("seed {seed}, {name}: {error}\n{}", small.graph));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} graphs:\n{}", failures.len(), failures.join("\n\n"));
}

/// Which graphs are made.
fn seeds() -> Range<u64> {
    let given = std::env::var("VIRAL_SEEDS").ok();
    let parsed = given.as_deref().map(|text| {
        let (start, end) = text.split_once("..").expect("VIRAL_SEEDS looks like 0..40");
        start.parse().unwrap()..end.parse().unwrap()
    });
    parsed.unwrap_or(0..80)
}

/// How a graph is compiled: as usual, and in one other way.
fn variants(seed: u64, graph: &Graph) -> Vec<(&'static str, Options)> {
    let own = || Options::new(device().target().clone());
    let mut variants = vec![("as usual", own())];
    variants.push(match seed % 5 {
        0 => ("without simplification", Options { skip: BTreeSet::from([Pass::Simplify]), ..own() }),
        1 => ("for hardware in general", Options::new(Target::baseline())),
        2 => ("with activations in bf16", Options { activations: DType::BF16, ..own() }),
        3 => ("in flat buffers", Options { places: flat(graph), ..own() }),
        _ => ("with rematerialisation", Options { remat: Remat::Block, ..own() }),
    });
    variants
}

/// Parameters, states and outputs in two buffers; an output that replaces a state has the state's place.
fn flat(graph: &Graph) -> HashMap<String, Placement> {
    let mut places: HashMap<String, Placement> = HashMap::new();
    let mut ends = [0; 2];
    let kept = graph.leaves().filter(|leaf| matches!(leaf.kind, LeafKind::Param | LeafKind::State));
    let outputs = graph.outputs().iter().map(|(name, value)| (name.as_str(), graph.ty(*value)));
    for (index, (name, ty)) in kept.map(|leaf| (leaf.name, leaf.ty)).chain(outputs).enumerate() {
        let which = index % 2;
        let place = Placement { buffer: format!("flat {which}"), offset: ends[which] };
        if places.contains_key(name) {
            continue;
        }
        places.insert(name.to_owned(), place);
        ends[which] += ty.bytes().next_multiple_of(u64::from(device().target().storage_align)).max(16);
    }
    places
}

/// Compares every pass's result with the graph, by the interpreter, and the device's with the interpreter's.
fn check(made: &Made, options: &Options) -> Result<(), String> {
    let mut expected = evaluate_outputs(&made.graph, &made.leaves)?;
    let mut wrong = None;
    let plan = compile_traced(&made.graph, options, &mut |pass, graph: &Graph| {
        let results = evaluate_outputs(graph, &made.leaves);
        // Rounding changes numbers; the device is to round at the same places.
        if let ("precision", Ok(results)) = (pass, &results) {
            expected.clone_from(results);
        }
        let result = results.and_then(|results| compare(&results, &expected, 1e-9));
        if let (Err(error), None) = (result, &wrong) {
            wrong = Some(format!("pass `{pass}`: {error}"));
        }
    });
    wrong.map_or(Ok(()), Err)?;
    plan.map_err(|error| error.to_string())?;
    let results = crate::support::run(&made.graph, &made.leaves, options);
    let bar = if options.activations.is_storage() { ROUNDED_BAR } else { BAR };
    compare(&results, &expected, bar).map_err(|error| format!("device: {error}"))
}

fn compare(results: &HashMap<String, Tensor>, expected: &HashMap<String, Tensor>, bar: f64) -> Result<(), String> {
    let mut names: Vec<&String> = expected.keys().collect();
    names.sort();
    for name in names {
        let (result, expected) = (&results[name], &expected[name]);
        let largest = expected.data.iter().fold(1e-2f64, |largest, x| largest.max(x.abs()));
        let differs = |(a, b): (&f64, &f64)| a.is_nan() || (a - b).abs() > bar * largest;
        if let Some(at) = result.data.iter().zip(&expected.data).position(differs) {
            let wrong = result.data.iter().zip(&expected.data).filter(|pair| differs(*pair)).count();
            return Err(format!(
                "`{name}` : {} has {wrong} wrong elements, the first is {at}: {} instead of {}",
                result.ty, result.data[at], expected.data[at]
            ));
        }
    }
    Ok(())
}
