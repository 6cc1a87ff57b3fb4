//! Whether a device computes right: every operation forward and backward, products of weights in every storage type and
//! products on cooperative matrices, each against the interpreter's numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use viral_compiler::compile::compile_traced;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::ops::{Class, Op, Random, Sample};
use viral_compiler::plan::{BufferRole, Plan, Port};
use viral_compiler::tensor::Tensor;
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Options, Target, compile};
use viral_runtime::{Buffer, Device, Executable, SlotPool};

use crate::error::Result;

/// Largest error of a value, as a distance relative to the norm of what is expected.
pub const VALUES: f64 = 1e-4;
/// Largest error of a gradient, likewise.
pub const GRADIENTS: f64 = 1e-3;

/// Names of all families of kernels, in the order of [`check`].
pub const FAMILIES: [&str; 9] = [
    "elementwise",
    "reductions",
    "views",
    "products",
    "stored-weights",
    "cooperative-products",
    "rows",
    "attention",
    "composites",
];

/// What was found about kernels of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Family {
    /// One of [`FAMILIES`].
    pub name: &'static str,
    /// Graphs that were run. None where the device has no such kernels.
    pub cases: usize,
    /// Largest error of a value.
    pub values: f64,
    /// Largest error of a gradient.
    pub gradients: f64,
    /// Kernels that ran.
    pub kernels: BTreeSet<String>,
    /// What was wrong: the case, the result and its error, or why it did not run.
    pub failures: Vec<String>,
}

/// Runs the families that `chosen` names on the device.
///
/// # Errors
/// The device was lost, or its memory does not suffice; a kernel that the device rejects is a failure of its family.
pub fn check(device: &Device, chosen: &dyn Fn(&str) -> bool) -> Result<Vec<Family>> {
    let cases = cases(device.target()).into_iter().filter(|case| chosen(case.family));
    let found = judge(cases, &mut |plan, leaves| match run(device, plan, leaves) {
        Ok(results) => Ok(Ok(results)),
        Err(error @ viral_runtime::Error::ShaderRejected { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    })?;
    let none = |name| Family { name, ..Family::default() };
    let wanted = FAMILIES.into_iter().filter(|name| chosen(name));
    Ok(wanted.map(|name| found.iter().find(|family| family.name == name).cloned().unwrap_or(none(name))).collect())
}

/// Products and attention kernels of plans for `target`: those of 32-bit floats first, then what takes their place where
/// products may round to 16-bit ones.
pub fn variants(target: &Target) -> Vec<String> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, &[128, 128]);
    let w = g.weight("w", &[128, 128]);
    let y = g.linear(x, w, None);
    let heads = g.reshape(y, &[1, 128, 2, 64]);
    let heads = g.attention(heads, heads, heads, true, 0.125);
    g.output("y", heads);
    let mut names: Vec<String> = Vec::new();
    for cooperative in [None, Some(1)] {
        let options = Options { cooperative, ..Options::new(target.clone()) };
        let kernels = compile(&g, &options).map(|plan| plan.kernels).unwrap_or_default();
        let is_telling = |name: &String| ["gemm", "attention", "pack"].iter().any(|family| name.starts_with(family));
        let new =
            kernels.into_iter().map(|kernel| kernel.name).filter(|name| is_telling(name) && !names.contains(name));
        names.extend(new.collect::<Vec<_>>());
    }
    names
}

/// A graph with what it is run on.
struct Case {
    family: &'static str,
    name: String,
    graph: Graph,
    leaves: Tensors,
    options: Options,
}

/// Leaves or results by name.
type Tensors = HashMap<String, Tensor>;

/// What a plan computed, or why it did not run.
type Outcome = std::result::Result<Tensors, String>;

/// Compares what `run` makes of each case with the interpreter's results.
fn judge(
    cases: impl Iterator<Item = Case>,
    run: &mut dyn FnMut(&Plan, &Tensors) -> Result<Outcome>,
) -> Result<Vec<Family>> {
    let mut families: Vec<Family> = Vec::new();
    for case in cases {
        if families.last().is_none_or(|family| family.name != case.family) {
            families.push(Family { name: case.family, ..Family::default() });
        }
        let family = families.last_mut().expect("one was just put there");
        family.cases += 1;
        // Rounding to 16-bit floats is not the kernel's error.
        let mut compiled = None;
        let plan = compile_traced(&case.graph, &case.options, &mut |stage, graph| {
            if stage == "matrices" {
                compiled = Some(graph.clone());
            }
        });
        let expected = compiled.ok_or_else(|| "it was not compiled".to_owned());
        let expected = expected.and_then(|graph| evaluate_outputs(&graph, &case.leaves).map_err(|e| e.to_string()));
        let outcome = match (plan, expected) {
            (Ok(plan), Ok(expected)) => {
                family.kernels.extend(plan.kernels.iter().map(|kernel| kernel.name.clone()));
                run(&plan, &case.leaves)?.map(|found| (found, expected))
            }
            (Err(error), _) => Err(error.to_string()),
            (_, Err(error)) => Err(error),
        };
        match outcome {
            Ok((found, expected)) => family.compare(&case.name, &found, &expected),
            Err(why) => family.failures.push(format!("{}: {why}", case.name)),
        }
    }
    Ok(families)
}

impl Family {
    /// Notes the errors of a case.
    fn compare(&mut self, case: &str, found: &Tensors, expected: &Tensors) {
        for (name, expected) in expected.iter().collect::<BTreeMap<_, _>>() {
            let is_gradient = name.starts_with('d');
            let error = found.get(name).map_or(f64::NAN, |found| relative_error(found, expected));
            let (worst, bound) =
                if is_gradient { (&mut self.gradients, GRADIENTS) } else { (&mut self.values, VALUES) };
            // What is not a number stays, whatever comes after it.
            *worst = if error.is_nan() || worst.is_nan() { f64::NAN } else { worst.max(error) };
            if error.is_nan() || error > bound {
                self.failures.push(format!("{case}: {name} is off by {error:.1e}, {bound:.0e} is allowed"));
            }
        }
    }
}

/// Every case, family after family.
fn cases(target: &Target) -> Vec<Case> {
    let mut random = Random(17);
    let mut cases: Vec<Case> = Op::samples().iter().map(|sample| of_sample(sample, target, &mut random)).collect();
    // Larger than a tile in every direction, and odd.
    cases.push(of_linear("products", DType::F32, [130, 70, 200], None, target, &mut random));
    for dtype in [DType::BF16, DType::F16, DType::Q8, DType::NF4] {
        for size in [[70, 68, 128], [3, 130, 64]] {
            cases.push(of_linear("stored-weights", dtype, size, None, target, &mut random));
        }
    }
    if target.cooperative_matrix.is_some() {
        for (dtype, size) in [(DType::F32, [130, 70, 200]), (DType::F16, [64, 128, 192]), (DType::NF4, [33, 65, 1024])]
        {
            cases.push(of_linear("cooperative-products", dtype, size, Some(1), target, &mut random));
        }
    }
    let position = |case: &Case| FAMILIES.iter().position(|name| *name == case.family);
    cases.sort_by_key(position);
    cases
}

/// A sample of the registry, with its gradients.
fn of_sample(sample: &Sample, target: &Target, random: &mut Random) -> Case {
    let graph = sample.value_and_gradients();
    let inputs = sample.tensors(random).into_iter().enumerate();
    let mut leaves: Tensors = inputs.map(|(i, tensor)| (i.to_string(), tensor)).collect();
    if let Some(leaf) = graph.leaves().find(|leaf| leaf.name == "w") {
        leaves.insert("w".into(), reals(leaf.ty, random));
    }
    let family = match (sample.op.class(), &sample.op) {
        (Class::Elementwise, _) => "elementwise",
        (Class::Reduction, _) => "reductions",
        (Class::Leaf | Class::Index | Class::View, _) => "views",
        (_, Op::Attention(_) | Op::AttentionLse(_) | Op::AttentionGrad(_)) => "attention",
        (_, Op::Dot(_)) => "products",
        (Class::Kernel, _) => "rows",
        (Class::Composite, _) => "composites",
    };
    Case { family, name: sample.op.to_string(), graph, leaves, options: Options::new(target.clone()) }
}

/// A linear map of `x (m, k)` by a frozen `(n, k)` that is stored as `dtype`, with the gradients of the map and of its input.
fn of_linear(
    family: &'static str,
    dtype: DType,
    [m, n, k]: [usize; 3],
    cooperative: Option<usize>,
    target: &Target,
    random: &mut Random,
) -> Case {
    let mut g = Graph::new();
    let (x, dy) = (g.input("x", DType::F32, &[m, k]), g.input("dy", DType::F32, &[m, n]));
    let w = g.weight("w", &[n, k]);
    let (y, dx) = (g.linear(x, w, None), g.dot(dy, w));
    let dy = g.transpose(dy);
    let dw = g.dot(dy, x);
    for (name, value) in [("y", y), ("dx", dx), ("dw", dw)] {
        g.output(name, value);
    }
    let mut leaf = |name: &str, ty: &TensorType| {
        let ty = TensorType::new(if name == "w" { dtype } else { ty.dtype }, ty.shape.clone());
        let values = reals(&ty, random);
        Tensor::from_bytes(&ty, &values.to_bytes())
    };
    let leaves = g.leaves().map(|found| (found.name.to_owned(), leaf(found.name, found.ty))).collect();
    let storage = BTreeMap::from([("w".to_owned(), dtype)]);
    let options = Options { storage, cooperative, ..Options::new(target.clone()) };
    Case { family, name: format!("linear {m}x{n}x{k}, {dtype}"), graph: g, leaves, options }
}

fn reals(ty: &TensorType, random: &mut Random) -> Tensor {
    Tensor::from_fn(ty, |_| random.real() - 0.5)
}

/// Euclidean distance relative to the norm of what is expected.
fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    if found.ty != expected.ty {
        return f64::NAN;
    }
    let distance: f64 = found.data.iter().zip(&expected.data).map(|(x, y)| (x - y) * (x - y)).sum();
    let norm: f64 = expected.data.iter().map(|y| y * y).sum();
    (distance / norm.max(1e-12)).sqrt()
}

/// Runs a plan once in memory of its own.
fn run(device: &Device, plan: &Plan, leaves: &Tensors) -> std::result::Result<Tensors, viral_runtime::Error> {
    let mut buffers: HashMap<&str, Buffer> = HashMap::new();
    for declared in &plan.buffers {
        if let BufferRole::External(name) = &declared.role {
            buffers.insert(name, device.buffer(name, declared.bytes.next_multiple_of(16).max(16))?);
        }
    }
    let buffer_of = |port: &Port| match &plan.buffers[port.bind.buffer.0 as usize].role {
        BufferRole::External(name) => buffers.get(name.as_str()),
        BufferRole::Slot => None,
    };
    for port in plan.inputs.iter().chain(&plan.state) {
        if let (Some(tensor), Some(buffer)) = (leaves.get(&port.name), buffer_of(port)) {
            device.write(buffer, port.bind.offset, &tensor.to_bytes())?;
        }
    }
    let executable = Executable::new(device, plan, &|name| buffers.get(name).cloned(), &mut SlotPool::new())?;
    executable.run()?.wait()?;
    let mut results = HashMap::new();
    for port in &plan.outputs {
        if let Some(buffer) = buffer_of(port) {
            let bytes = device.read(buffer, port.bind.offset..port.bind.offset + port.ty.bytes())?;
            results.insert(port.name.clone(), Tensor::from_bytes(&port.ty, &bytes));
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(target: &Target, chosen: &str, change: &mut dyn FnMut(&mut Tensors)) -> Vec<Family> {
        let cases = cases(target).into_iter().filter(|case| case.family == chosen);
        let graphs: Vec<Graph> = cases.map(|case| case.graph).collect();
        let mut graphs = graphs.iter();
        let cases = super::cases(target).into_iter().filter(|case| case.family == chosen);
        judge(cases, &mut |_, leaves| {
            let leaves = leaves.iter().map(|(name, tensor)| {
                let ty =
                    TensorType::new(if name == "w" { DType::F32 } else { tensor.ty.dtype }, tensor.ty.shape.clone());
                (name.clone(), Tensor::new(ty, tensor.data.clone()))
            });
            let mut results = evaluate_outputs(graphs.next().unwrap(), &leaves.collect()).unwrap();
            change(&mut results);
            Ok(Ok(results))
        })
        .unwrap()
    }

    #[test]
    fn wrong_results_are_told_by_case_and_right_ones_are_not() {
        let target = Target::baseline();
        let right = judged(&target, "stored-weights", &mut |_| {});
        assert_eq!((right.len(), right[0].cases, right[0].values, right[0].failures.len()), (1, 8, 0.0, 0));
        assert!(right[0].kernels.iter().any(|kernel| kernel.contains("nf4")), "{:?}", right[0].kernels);

        let mut count = 0;
        let wrong = judged(&target, "stored-weights", &mut |results| {
            count += 1;
            match count {
                1 => results.get_mut("y").unwrap().data[5] += 1.0,
                2 => results.get_mut("dx").unwrap().data[0] = f64::NAN,
                3 => {
                    results.remove("dw");
                }
                _ => {}
            }
        });
        let told: Vec<&str> = wrong[0].failures.iter().map(|text| text.split(" is off").next().unwrap()).collect();
        assert_eq!(told, ["linear 70x68x128, bf16: y", "linear 3x130x64, bf16: dx", "linear 70x68x128, f16: dw"]);
        assert!(wrong[0].values > VALUES && wrong[0].gradients.is_nan());
    }

    #[test]
    fn every_family_has_cases_on_a_device_that_has_everything() {
        let target = Target { cooperative_matrix: Some(8), f16: true, subgroup: Some((8, 8)), ..Target::baseline() };
        let found: BTreeSet<&str> = cases(&target).iter().map(|case| case.family).collect();
        assert_eq!(found, BTreeSet::from(FAMILIES));
        assert_eq!(variants(&Target::baseline()), ["gemm_tile64_nt_vec4", "attention_tile_out_64"]);
        let names = variants(&target);
        assert!(names[0] == "gemm_tile64_nt_vec4" && names.iter().any(|name| name == "gemm_coop8_32_nt"), "{names:?}");
    }
}
