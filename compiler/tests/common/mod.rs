//! Graphs that several tests compile.

use viral_compiler::grad::gradients;
use viral_compiler::ops::Op;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};
use viral_shaders::{DeviceClass, Target};

/// What every device can do, and a software device.
pub(crate) fn targets() -> [Target; 2] {
    [Target::baseline(), Target { class: DeviceClass::Cpu, subgroup: Some((8, 8)), ..Target::baseline() }]
}

/// Every operation's samples, forward and backward, and [`multimodal`].
pub(crate) fn graphs() -> Vec<(String, Graph)> {
    let samples = Op::samples();
    let samples = samples.iter().map(|sample| (sample.op.to_string(), sample.value_and_gradients()));
    samples.chain([("multimodal".to_owned(), multimodal())]).collect()
}

/// A small multimodal decoder as it is trained: visual features projected and put among token embeddings, blocks with
/// grouped attention and adapters, a language and an alignment loss, gradients added to state.
pub(crate) fn multimodal() -> Graph {
    let (batch, tokens, width, heads, groups, head, patches) = (2, 7, 24, 4, 2, 6, 3);
    let g = &mut Graph::new();
    let features = g.input("features", DType::F32, &[batch * patches, 10]);
    let (w1, b1) = (g.param("projector.weight", &[width, 10]), g.param("projector.bias", &[width]));
    let visual = g.linear(features, w1, Some(b1));
    let visual = g.gelu(visual);
    let ids = g.input("token_ids", DType::U32, &[batch * tokens]);
    let table = g.weight("embed_tokens", &[40, width]);
    let text = g.gather(table, ids, false);
    let places = g.input("visual_index", DType::U32, &[batch * tokens]);
    let pictures = g.gather(visual, places, true);
    let mut h = g.add(text, pictures);
    let (cos, sin) = (g.input("cos", DType::F32, &[tokens, head / 2]), g.input("sin", DType::F32, &[tokens, head / 2]));
    for layer in 0..2 {
        h = g.scoped(format!("layers.{layer}"), |g| {
            let weight = g.weight(format!("norm.{layer}"), &[width]);
            let x = g.rms_norm(h, weight, 1e-5);
            let project = |g: &mut Graph, name: &str, heads: usize| {
                let y = adapted(g, &format!("{name}.{layer}"), x, heads * head);
                g.reshape(y, &[batch, tokens, heads, head])
            };
            let (q, k, v) = (project(g, "q", heads), project(g, "k", groups), project(g, "v", groups));
            let (q, k) = (g.rope(q, cos, sin), g.rope(k, cos, sin));
            let y = g.attention(q, k, v, true, 0.4);
            let y = g.reshape(y, &[batch * tokens, heads * head]);
            let y = adapted(g, &format!("o.{layer}"), y, width);
            let h = g.add(h, y);
            let weight = g.weight(format!("mlp_norm.{layer}"), &[width]);
            let x = g.rms_norm(h, weight, 1e-5);
            let (gate, up) = (adapted(g, &format!("gate.{layer}"), x, 33), adapted(g, &format!("up.{layer}"), x, 33));
            let y = g.swiglu(gate, up);
            let y = adapted(g, &format!("down.{layer}"), y, width);
            g.add(h, y)
        });
    }
    let positions = g.input("target_positions", DType::U32, &[5]);
    let states = g.gather(h, positions, true);
    let head_weight = g.weight("lm_head", &[40, width]);
    let logits = g.linear(states, head_weight, None);
    let targets = g.input("target_ids", DType::U32, &[5]);
    let nll = g.cross_entropy(logits, targets);
    let lm = g.sum_all(nll);

    let positions = g.input("vra_positions", DType::U32, &[batch * patches]);
    let states = g.gather(h, positions, true);
    let alignment = g.param("alignment.weight", &[11, width]);
    let p = g.linear(states, alignment, None);
    let teacher = g.input("teacher", DType::F32, &[batch * patches, 11]);
    let cosine = g.cosine_align(p, teacher);
    let vra = g.sum_all(cosine);
    let loss = g.sub(lm, vra);
    g.output("loss", loss);

    let params: Vec<(String, Value)> = g
        .leaves()
        .filter(|leaf| leaf.kind == viral_compiler::ir::LeafKind::Param)
        .map(|leaf| (leaf.name.to_owned(), leaf.value))
        .collect();
    let wanted: Vec<Value> = params.iter().map(|&(_, value)| value).collect();
    for ((name, value), gradient) in params.into_iter().zip(gradients(g, loss, &wanted)) {
        let shape = g.shape(value).to_vec();
        let earlier = g.state(format!("{name}.grad"), &shape);
        let sum = g.add(earlier, gradient.expect("every parameter has a part in the loss"));
        g.output(format!("{name}.grad"), sum);
    }
    g.clone()
}

/// A frozen linear map of `x (M, K)` to `(M, n)` with a low-rank adapter.
fn adapted(g: &mut Graph, name: &str, x: Value, n: usize) -> Value {
    let k = g.shape(x)[1];
    let w = g.weight(format!("{name}.weight"), &[n, k]);
    let (a, b) = (g.param(format!("{name}.lora_A"), &[3, k]), g.param(format!("{name}.lora_B"), &[n, 3]));
    g.lora_linear(x, x, w, a, b, 2.0)
}
