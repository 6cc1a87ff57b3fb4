//! What does not fit is reported, never a panic: arguments of wrong types, text that is no graph.

use std::panic::{AssertUnwindSafe, catch_unwind};

use viral_compiler::ops::{Op, Random};
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Options, Target, Value, compile};

fn random_type(random: &mut Random) -> TensorType {
    let dtype = DType::ALL[if random.below(3) > 0 { 0 } else { random.below(4) }];
    let shape: Vec<usize> = (0..random.below(5)).map(|_| [0, 1, 2, 3, 4][random.below(5)]).collect();
    TensorType::new(dtype, shape)
}

fn quietly<T>(what: &str, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| panic!("{what} panicked"))
}

#[test]
fn type_rules_refuse_any_wrong_arguments() {
    let mut random = Random(21);
    for sample in Op::samples() {
        for _ in 0..500 {
            // Mostly right arguments, some of which are exchanged, left out or doubled.
            let mut types: Vec<TensorType> = sample.args.iter().map(|(ty, _)| ty.clone()).collect();
            for _ in 0..1 + random.below(3) {
                match (random.below(4), types.len()) {
                    (0, _) | (_, 0) => types.push(random_type(&mut random)),
                    (1, len) => drop(types.remove(random.below(len))),
                    (_, len) => types[random.below(len)] = random_type(&mut random),
                }
            }
            let args: Vec<&TensorType> = types.iter().collect();
            let _ = quietly(&format!("{}{types:?}", sample.op), || sample.op.infer(&args));
        }
    }
}

/// Builder methods work on values whose types are not what the caller thought.
#[test]
fn builders_report_the_first_mistake() {
    type Build = fn(&mut Graph, &[Value]) -> Value;
    let builders: [(&str, Build); 24] = [
        ("add", |g, x| g.add(x[0], x[1])),
        ("select", |g, x| g.select(x[0], x[1], x[2])),
        ("uniform", |g, x| g.uniform(x[0], x[1])),
        ("gelu", |g, x| g.gelu(x[0])),
        ("sum", |g, x| g.sum(x[0], &[0, 2])),
        ("sum_all", |g, x| g.sum_all(x[0])),
        ("mean_last", |g, x| g.mean_last(x[0])),
        ("reduce_max", |g, x| g.reduce_max(x[0], &[1])),
        ("reshape", |g, x| g.reshape(x[0], &[2, 3])),
        ("permute", |g, x| g.permute(x[0], &[1, 0, 2])),
        ("transpose", |g, x| g.transpose(x[0])),
        ("expand", |g, x| g.expand(x[0], &[2, 3])),
        ("slice", |g, x| g.slice(x[0], 1, 1, usize::MAX)),
        ("pad", |g, x| g.pad(x[0], 2, 1, 1)),
        ("concat", |g, x| g.concat(x, 1)),
        ("dot", |g, x| g.dot(x[0], x[1])),
        ("linear", |g, x| g.linear(x[0], x[1], Some(x[2]))),
        ("gather", |g, x| g.gather(x[0], x[1], false)),
        ("scatter", |g, x| g.scatter(x[0], x[1], 4, true)),
        ("layer_norm", |g, x| g.layer_norm(x[0], x[1], x[2], 1e-5)),
        ("rope", |g, x| g.rope(x[0], x[1], x[2])),
        ("attention", |g, x| g.attention(x[0], x[1], x[2], true, 1.0)),
        ("cross_entropy", |g, x| g.cross_entropy(x[0], x[1])),
        ("global_norm", |g, x| g.global_norm(&x[..1])),
    ];
    let mut random = Random(22);
    for (name, build) in builders {
        for _ in 0..300 {
            let types = [0; 3].map(|_| random_type(&mut random));
            let mut graph = Graph::new();
            let args: Vec<Value> =
                types.iter().enumerate().map(|(i, ty)| graph.input(format!("x{i}"), ty.dtype, &ty.shape)).collect();
            let result = quietly(&format!("{name}{types:?}"), || build(&mut graph, &args));
            graph.output("y", result);
            let plan =
                quietly(&format!("compile {name}{types:?}"), || compile(&graph, &Options::new(Target::baseline())));
            match graph.check() {
                Ok(()) => graph.verify().unwrap_or_else(|error| panic!("{name}{types:?}: {error}")),
                Err(_) => assert!(plan.unwrap_err().to_string().starts_with("build: ")),
            }
        }
    }
}

#[test]
fn mistakes_name_operation_types_place_and_reason() {
    let mut graph = Graph::new();
    let a = graph.input("a", DType::F32, &[2, 3]);
    let b = graph.input("b", DType::F32, &[4, 5]);
    graph.scoped("layers.3", |graph| graph.scoped("q_proj", |graph| graph.dot(a, b)));
    let error = graph.check().unwrap_err().to_string();
    assert_eq!(error, "dot(f32[2,3], f32[4,5]) at `layers.3.q_proj`: 3 columns do not meet 4 rows");
}

#[test]
fn a_tensor_without_elements_is_named() {
    let mut graph = Graph::new();
    let x = graph.input("pixels", DType::F32, &[0, 3]);
    let y = graph.exp(x);
    graph.output("y", y);
    let error = compile(&graph, &Options::new(Target::baseline())).unwrap_err().to_string();
    assert_eq!(error, "`pixels` is f32[0,3]: a tensor without elements cannot be computed; leave it out of the graph");
}

#[test]
fn damaged_text_is_refused_with_its_line() {
    let mut random = Random(23);
    for sample in Op::samples() {
        let text = sample.value_and_gradients().to_string();
        let lines: Vec<&str> = text.lines().collect();
        for _ in 0..40 {
            let mut chars: Vec<char> = text.chars().collect();
            for _ in 0..1 + random.below(3) {
                let at = random.below(chars.len());
                match random.below(3) {
                    0 => drop(chars.remove(at)),
                    1 => chars.insert(at, ['%', '(', ')', '{', ',', '9', ']', '=', '-'][random.below(9)]),
                    _ => chars[at] = ['0', ' ', '"', 'x', '[', ':', '@', '\n', '.'][random.below(9)],
                }
            }
            let damaged: String = chars.into_iter().collect();
            match quietly(&damaged, || damaged.parse::<Graph>()) {
                Ok(graph) => assert!(graph.len() <= lines.len() + 3),
                Err(error) => assert!((1..=lines.len() + 3).contains(&error.line), "{error}"),
            }
        }
    }
}
