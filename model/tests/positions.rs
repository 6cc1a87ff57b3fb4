//! Position tables at other grids and distances against the networks' own code.

#[path = "../../tests/support/counter.rs"]
mod counter;

use std::path::Path;

use counter::{content, probe};
use serde_json::Value as Json;
use viral_model::graph::LeafSource;

/// Largest error relative to the table's norm, and of a single number, which is at most 0.8.
const TOLERANCE: f64 = 1e-6;

#[test]
fn tables_are_resampled_as_by_the_references() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/networks/positions.json");
    let cases: Json = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap_or(0) as usize;
        let filter = case["filter"].as_str().unwrap();
        let (stored, name, extra, side) = match filter {
            "relative" => (number("stored"), "rel_pos_h", 0, number("points")),
            _ => (number("extra") + number("side").pow(2), "pos_embed", number("extra"), number("grid")),
        };
        let shape = [stored, 3];
        let leaf = format!("teacher.{name}@{side}x{side},{filter}");
        let load = |_, name: &str| Ok::<_, String>((shape.to_vec(), content(name, &shape)));
        let table = LeafSource::of(&leaf).content(load).unwrap();
        let table: Vec<f64> = table.into_iter().map(f64::from).collect();
        assert_eq!(table.len(), (extra + side * side) * 3);

        let expected = numbers(&case["table"]);
        for (found, number) in probe("table", &table).iter().zip(&expected) {
            // A product with numbers uniform in (-1, 1) is about the norm over the root of 3.
            assert!(
                3f64.sqrt() * (found - number).abs() < TOLERANCE * expected[0],
                "{leaf}: {found}, expected {number}"
            );
        }
        let last = extra + side * side - 1;
        for (row, expected) in [extra, extra + side + 1, last].into_iter().zip(case["rows"].as_array().unwrap()) {
            for (found, number) in table[3 * row..].iter().zip(numbers(expected)) {
                assert!((found - number).abs() < TOLERANCE, "{leaf}, row {row}: {found}, expected {number}");
            }
        }
    }
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}
