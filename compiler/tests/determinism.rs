//! The same graph gives the same plan, byte for byte, and so does its text.

mod common;

use viral_compiler::{Graph, Options, compile};

#[test]
fn equal_graphs_give_equal_plans() {
    for (name, graph) in common::graphs() {
        let text = graph.to_string();
        let parsed: Graph = text.parse().unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        assert_eq!(parsed.to_string(), text, "{name}");
        for target in common::targets() {
            let options = Options::new(target);
            let plan = compile(&graph, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
            // Hash maps of the standard library are seeded anew every time.
            for _ in 0..3 {
                assert_eq!(compile(&graph, &options).as_ref(), Ok(&plan), "{name}");
            }
            assert_eq!(compile(&parsed, &options).as_ref(), Ok(&plan), "{name}, from text");
        }
    }
}
