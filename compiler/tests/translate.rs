//! Every kernel of every test graph is valid WGSL, agrees with its record, and translates to SPIR-V, MSL and HLSL.

mod common;

use std::collections::BTreeMap;

use viral_compiler::{Options, compile};
use viral_shaders::Kernel;
use viral_shaders::check::translate_everywhere;

#[test]
fn generated_kernels_translate_to_every_backend() {
    // Most kernels occur in several graphs.
    let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
    for (name, graph) in common::graphs() {
        for target in common::targets() {
            let plan = compile(&graph, &Options::new(target)).unwrap_or_else(|error| panic!("{name}: {error}"));
            kernels.extend(plan.kernels.into_iter().map(|kernel| (kernel.wgsl.clone(), kernel)));
        }
    }
    assert!(kernels.len() > 150, "{} kernels", kernels.len());
    let errors: Vec<String> = kernels.values().filter_map(|kernel| translate_everywhere(kernel).err()).collect();
    assert!(errors.is_empty(), "{} of {} kernels:\n{}", errors.len(), kernels.len(), errors.join("\n"));
}
