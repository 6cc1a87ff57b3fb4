//! Products on cooperative matrices: kernels that are wrong are found, and right ones give what the interpreter computes from
//! operands rounded to 16-bit floats.

use std::collections::{BTreeMap, HashMap};
use std::process;
use std::sync::OnceLock;

use crate::support::{relative_error, run_on};
use viral_compiler::compile::compile_traced;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::grad::gradients;
use viral_compiler::ops::Random;
use viral_compiler::ops::pack_f16::PackF16;
use viral_compiler::plan::{Command, Plan};
use viral_compiler::tensor::Tensor;
use viral_compiler::tunables::questions;
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Options, Target, compile};
use viral_runtime::{AdapterChoice, Device, DeviceOptions, matrices};
use viral_shaders::Kernel;
use viral_shaders::coop::{self, Spec};
use viral_shaders::gemm::Form;

/// Mesa's software device has cooperative matrices in vectors of eight lanes only, which is a setting from before the driver
/// is loaded: so all tests of this file run once more in a process of their own, where kernels are compiled once for all of them, and
/// the test `name` is done when that has succeeded. `true` there.
fn in_eight_lanes(name: &str) -> bool {
    const WIDTH: (&str, &str) = ("LP_NATIVE_VECTOR_WIDTH", "256");
    static OUTPUT: OnceLock<String> = OnceLock::new();
    if !cfg!(target_os = "linux") || std::env::var(WIDTH.0).is_ok_and(|width| width == WIDTH.1) {
        return true;
    }
    let output = OUTPUT.get_or_init(|| {
        let mut command = process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/software-vulkan"));
        command.args(std::env::args().next()).arg("cooperative::").env(WIDTH.0, WIDTH.1);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    });
    assert!(output.contains(&format!("test cooperative::{name} ... ok")), "{output}");
    false
}

/// The device under test, with cooperative matrices.
fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let options = DeviceOptions { cooperative_matrix: true, ..Default::default() };
        let device = Device::open(&AdapterChoice::default(), &options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(device.cooperative_fault(), None);
        assert!(device.target().cooperative_matrix.is_some(), "no cooperative matrices: {:?}", device.adapter());
        device
    })
}

#[test]
fn a_kernel_that_is_wrong_somewhere_is_found() {
    if !in_eight_lanes("a_kernel_that_is_wrong_somewhere_is_found") {
        return;
    }
    let device = device();
    // Only products of one form are wrong.
    let broken = |form: Form, from: &'static str, to: &'static str| {
        let link = |spec: &Spec| {
            let mut kernel = coop::kernel(spec, device.target());
            assert!(kernel.wgsl.contains(from), "{from}");
            if spec.form == form {
                kernel.wgsl = kernel.wgsl.replace(from, to);
            }
            kernel
        };
        matrices::fault_of(device, &link).unwrap()
    };
    // None of them leaves C, which nothing would keep it from: a wrong stride, a tile too few along the sums, wrong tiles, and
    // text that does not compile.
    let mistakes = [
        ("let stride = p.n * EDGE;", "let stride = p.n * EDGE - 8u;", " instead of "),
        ("step < last;", "step + 2u < last;", " instead of "),
        ("b_tile(place, column_tile + 1u)", "b_tile(place, column_tile)", " instead of "),
        ("coopMultiplyAdd(left3, right1, sums31)", "coopMultiplyAdd(left3, right0, sums31)", " instead of "),
        ("let b_second = (step + 1u)", "let b_second = step", " instead of "),
        ("4u * (part / 2u)", "4u * (part % 2u)", " instead of "),
        ("coopMultiplyAdd(left0", "coopMultiplyAd(left0", " was rejected: "),
    ];
    for (form, (from, to, told)) in Form::ALL.into_iter().cycle().zip(mistakes) {
        let fault = broken(form, from, to);
        assert!(fault.as_ref().is_some_and(|fault| fault.contains(told)), "{form:?}, {to}: {fault:?}");
    }
}

/// Compiles for cooperative matrices every product that has at least `least` of everything.
fn options(least: usize) -> Options {
    Options { cooperative: Some(least), ..Options::new(device().target().clone()) }
}

/// Launches of kernels that `counts`.
fn launches(plan: &Plan, counts: impl Fn(&Kernel) -> bool) -> usize {
    let kernels = plan.commands.iter().filter_map(|command| match command {
        Command::Dispatch(dispatch) => Some(&plan.kernels[dispatch.kernel.0 as usize]),
        Command::Clear(_) => None,
    });
    kernels.filter(|kernel| counts(kernel)).count()
}

fn cooperative_products(plan: &Plan) -> usize {
    launches(plan, |kernel| kernel.requires.cooperative_matrix.is_some())
}

fn packed_operands(plan: &Plan) -> usize {
    launches(plan, |kernel| kernel.name.starts_with("pack_f16"))
}

/// Random leaves, as their types store them once the options are applied.
fn leaves(graph: &Graph, options: &Options) -> HashMap<String, Tensor> {
    let mut random = Random(11);
    let mut leaf = |name: &str, ty: &TensorType| {
        let ty = TensorType::new(options.storage.get(name).copied().unwrap_or(ty.dtype), ty.shape.clone());
        let values = Tensor::from_fn(&ty, |_| 2.0 * random.real() - 1.0);
        Tensor::from_bytes(&ty, &values.to_bytes())
    };
    graph.leaves().map(|found| (found.name.to_owned(), leaf(found.name, found.ty))).collect()
}

/// The graph's outputs on the device are what the interpreter computes from rounded operands, up to the first of `bounds`, and
/// what it computes from the operands themselves, up to the second. Returns the number of products on cooperative matrices.
#[track_caller]
fn check(graph: &Graph, options: &Options, bounds: [f64; 2], what: &str) -> usize {
    let leaves = leaves(graph, options);
    let mut rounded = None;
    let plan = compile_traced(graph, options, &mut |stage, graph| {
        if stage == "matrices" {
            rounded = Some(graph.clone());
        }
    });
    let plan = plan.unwrap_or_else(|error| panic!("{what}: {error}"));
    let as_reals = |tensor: &Tensor| Tensor::f32(tensor.ty.shape.clone(), tensor.data.clone());
    let reals = leaves.iter().map(|(name, tensor)| (name.clone(), as_reals(tensor))).collect();
    let exact = evaluate_outputs(graph, &reals).unwrap();
    let rounded = evaluate_outputs(&rounded.unwrap(), &leaves).unwrap();
    let found = run_on(device(), graph, &leaves, options);
    for (name, found) in &found {
        let error = relative_error(found, &rounded[name]);
        assert!(error < bounds[0], "{what}: {name}: {error:.2e} from rounded operands");
        let error = relative_error(found, &exact[name]);
        assert!(error < bounds[1], "{what}: {name}: {error:.2e} from exact operands");
    }
    cooperative_products(&plan)
}

#[test]
fn products_of_any_size_and_form_agree_with_the_interpreter() {
    if !in_eight_lanes("products_of_any_size_and_form_agree_with_the_interpreter") {
        return;
    }
    let sizes = [
        [1, 1, 1],
        [1, 8, 70],
        [7, 9, 8],
        [8, 7, 33],
        [9, 17, 1],
        [17, 70, 9],
        [33, 1, 17],
        [70, 33, 70],
        [72, 40, 64],
        // So long that the sums are cut, in parts of which the last is shorter.
        [40, 24, 700],
    ];
    for (i, [m, n, k]) in sizes.into_iter().enumerate() {
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            let batch: &[usize] = if i % 4 == 2 { &[2, 3] } else { &[] };
            let mut graph = Graph::new();
            let mut factor = |name: &str, is_transposed: bool, rows: usize, columns: usize| {
                let stored = if is_transposed { [columns, rows] } else { [rows, columns] };
                let stored = [batch, &stored].concat();
                let value =
                    if name == "b" { graph.weight(name, &stored) } else { graph.input(name, DType::F32, &stored) };
                if is_transposed { graph.transpose(value) } else { value }
            };
            let (a, b) = (factor("a", transposed[0], m, k), factor("b", transposed[1], k, n));
            let c = graph.dot(a, b);
            graph.output("c", c);
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                let storage = BTreeMap::from([("b".to_owned(), dtype)]);
                let options = Options { storage, ..options(1) };
                let what = format!("{m}x{n}x{k} {transposed:?} {dtype}");
                assert_eq!(check(&graph, &options, [2e-6, 5e-4], &what), 1, "{what}");
            }
        }
    }
}

#[test]
fn choices_that_a_measurement_may_take_agree_with_the_interpreter() {
    if !in_eight_lanes("choices_that_a_measurement_may_take_agree_with_the_interpreter") {
        return;
    }
    let mut graph = Graph::new();
    let (a, b) = (graph.weight("a", &[40, 700]), graph.weight("b", &[24, 700]));
    let b = graph.transpose(b);
    let c = graph.dot(a, b);
    graph.output("c", c);
    for least in [1, 64] {
        let options = options(least);
        let asked = questions(&graph, &options).unwrap();
        let question = asked.iter().find(|question| question.tunable == "matrices").unwrap();
        assert_eq!(question.rule, if least == 1 { "matrices" } else { "ordinary" });
        let choices = [&question.rule].into_iter().chain(&question.others).collect::<Vec<_>>();
        assert!(choices.len() > 3, "{choices:?}");
        for choice in choices {
            let mut options = options.clone();
            options.target.tuning.set(question.tunable, &question.class, choice);
            assert_eq!(check(&graph, &options, [2e-6, 5e-4], choice), usize::from(choice != "ordinary"), "{choice}");
        }
    }
}

/// A linear map with a bias, an adapter and a residual sum, and all its gradients, two of them added to state.
fn adapted_layer(m: usize, n: usize, k: usize, rank: usize) -> Graph {
    let mut g = Graph::new();
    let (x, dy) = (g.input("x", DType::F32, &[m, k]), g.input("dy", DType::F32, &[m, n]));
    let (w, bias) = (g.weight("w", &[n, k]), g.weight("bias", &[n]));
    let (a, b) = (g.param("lora_A", &[rank, k]), g.param("lora_B", &[n, rank]));
    let adapted = g.lora_linear(x, x, w, a, b, 2.0);
    let bias = g.expand(bias, &[m, n]);
    let y = g.add(adapted, bias);
    let y = g.gelu(y);
    let product = g.mul(y, dy);
    let loss = g.sum_all(product);
    let all = gradients(&mut g, loss, &[x, a, b]).into_iter().map(Option::unwrap).collect::<Vec<_>>();
    g.output("y", y);
    g.output("x.grad", all[0]);
    for (name, gradient) in [("lora_A", all[1]), ("lora_B", all[2])] {
        let shape = g.shape(gradient).to_vec();
        let earlier = g.state(format!("{name}.grad"), &shape);
        let sum = g.add(earlier, gradient);
        g.output(format!("{name}.grad"), sum);
    }
    g
}

#[test]
fn an_adapted_layer_and_its_gradients_agree_with_the_interpreter() {
    if !in_eight_lanes("an_adapted_layer_and_its_gradients_agree_with_the_interpreter") {
        return;
    }
    // An operand that is the result of sums in 32 bits may be rounded to the other side.
    let bounds = [1e-4, 2e-3];
    for (m, n, k, rank) in [(40, 72, 128, 16), (33, 70, 64, 9)] {
        let graph = adapted_layer(m, n, k, rank);
        for dtype in [DType::F32, DType::BF16, DType::F16, DType::Q8, DType::NF4] {
            let storage = BTreeMap::from([("w".to_owned(), dtype)]);
            let what = format!("{m}x{n}x{k} {dtype}");
            let on_matrices = Options { storage, ..options(9) };
            // Forward x·Wᵀ, z = x·Aᵀ, z·Bᵀ; backward dz = dy·B, dy·W, dz·A, dzᵀ·x, dyᵀ·z. Without the low-rank ones, two.
            assert_eq!(check(&graph, &on_matrices, bounds, &what), 8, "{what}");
            assert_eq!(
                check(&graph, &Options { cooperative: Some(17), ..on_matrices.clone() }, bounds, &what),
                2,
                "{what}"
            );
            // Without leave to round nothing changes, whatever the device can.
            let ordinary = compile(&graph, &Options { cooperative: None, ..on_matrices.clone() }).unwrap();
            assert_eq!(cooperative_products(&ordinary), 0);
            assert_eq!(packed_operands(&ordinary), 0);
        }
    }
}

#[test]
fn what_is_packed_once_and_what_for_every_product() {
    let target = Target { subgroup: Some((32, 32)), f16: true, cooperative_matrix: Some(8), ..Target::baseline() };
    let packs = |graph: &Graph, dtype: DType| {
        let storage = BTreeMap::from([("w".to_owned(), dtype)]);
        let options = Options { storage, cooperative: Some(8), ..Options::new(target.clone()) };
        packed_operands(&compile(graph, &options).unwrap())
    };
    // x, w twice, A twice, B twice, the bottleneck and its gradient, the gradient of the result.
    let graph = adapted_layer(40, 72, 128, 16);
    assert_eq!([DType::BF16, DType::F16].map(|dtype| packs(&graph, dtype)), [10, 10]);
}

#[test]
fn numbers_beyond_the_range_stay_finite_and_others_stay_what_they_are() {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, &[2, 8]);
    let packed = graph.push(PackF16 { edge: 8 }, &[x]);
    let wide = graph.widen(packed);
    // Two rows of the first tile.
    let first = graph.slice(wide, 0, 0, 1);
    let first = graph.slice(first, 1, 0, 1);
    let wide = graph.slice(first, 2, 0, 2);
    graph.output("y", wide);
    let numbers = [
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        3e38,
        -7e4,
        65504.0,
        65519.0,
        1.0, //
        2f64.powi(-25),
        1.5 * 2f64.powi(-25),
        -(2f64.powi(-24)),
        2f64.powi(-14),
        1.0 + 2f64.powi(-11),
        1.0 + 3.0 * 2f64.powi(-11),
        0.0,
        -0.0,
    ];
    let expected = [
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        65504.0,
        -65504.0,
        65504.0,
        65504.0,
        1.0, //
        0.0,
        2f64.powi(-24),
        -(2f64.powi(-24)),
        2f64.powi(-14),
        1.0,
        1.0 + 2f64.powi(-9),
        0.0,
        -0.0,
    ];
    let leaves = HashMap::from([("x".to_owned(), Tensor::f32([2, 8], numbers.to_vec()))]);
    let found = crate::support::run(&graph, &leaves, &Options::new(crate::support::device().target().clone()));
    let bits = |numbers: &[f64]| numbers.iter().map(|x| if x.is_nan() { 0 } else { x.to_bits() }).collect::<Vec<_>>();
    assert_eq!(bits(&found["y"].data), bits(&expected));
}
