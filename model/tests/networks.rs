//! The networks against PyTorch on the reference's fixtures, in the f64 interpreter, and at their true sizes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::grad::gradients;
use viral_compiler::ir::LeafKind;
use viral_compiler::tensor::Tensor;
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Value};
use viral_model::config::{Dinov2Config, ImageProcessorConfig, LlavaConfig};
use viral_model::graph::llava::{NO_ROW, Visual};
use viral_model::graph::pixels::PixelNorm;
use viral_model::graph::projector::Alignment;
use viral_model::graph::residual::Residual;
use viral_model::graph::teachers::{InputPath, InputSize, Teacher};
use viral_model::graph::{
    Adapters, BatchInput, BatchShape, Dropout, LeafSource, LinearMap, Noise, Origin, Trainable, adapter_key, llama,
    llava, pixels, projector, teachers, vision,
};
use viral_model::weights::{Checkpoint, NameMap, TensorFile};

/// Largest accepted distance to PyTorch's f32, relative to the tensor's norm.
const TOLERANCE: f64 = 1e-5;

#[test]
fn grouped_query_attention_matches_pytorch() {
    Fixture::new("gqa", lora(4, 8.0, &LinearMap::ALL), &[2], 40, 512).check();
}

#[test]
fn resampled_positions_and_a_cut_picture_match_pytorch() {
    use LinearMap::{Down, O, Q, Up, V};
    Fixture::new("mha", lora(3, 4.0, &[Q, V, O, Up, Down]), &[1, 3], 24, 85).check();
}

/// The whole micro-batch of this case is in the fixture, so its losses and gradients can be compared, too.
#[test]
fn losses_and_gradients_match_pytorch() {
    use LinearMap::{Down, O, Q, Up, V};
    let fixture = Fixture::new("mha", lora(3, 4.0, &[Q, V, O, Up, Down]), &[1, 3], 24, 85);
    let mut net = fixture.build(Trainable::LORA);
    let weight = net.graph.scale(net.vra, 0.8);
    let loss = net.graph.add(net.lm, weight);
    let params: Vec<(String, Value)> = trained(&net.graph);
    let wanted: Vec<Value> = params.iter().map(|(_, value)| *value).collect();
    let gradients = gradients(&mut net.graph, loss, &wanted);
    for ((name, _), gradient) in params.iter().zip(gradients) {
        net.graph.output(format!("grad.{}", adapter_key(name)), gradient.expect("every parameter has a gradient"));
    }
    let results = fixture.evaluate(&net.graph);
    let step = &fixture.expected["steps"][0];
    for (name, key) in [("lm", "loss_lm"), ("vra", "loss_vra")] {
        let (ours, theirs) = (results[name].data[0], step[key].as_f64().unwrap());
        assert!((ours - theirs).abs() < TOLERANCE, "{name}: {ours}, expected {theirs}");
    }
    let compared = fixture.compare(&results, "grad.");
    assert_eq!(compared, params.len());
}

#[test]
fn a_policy_changes_the_kind_of_leaves_and_nothing_else() {
    let fixture = Fixture::new("gqa", lora(4, 8.0, &LinearMap::ALL), &[2], 40, 512);
    let graphs = [Trainable::NOTHING, Trainable::PRETRAIN, Trainable::LORA, Trainable::FULL]
        .map(|policy| fixture.build(policy).graph);
    let counts = graphs.each_ref().map(|graph| trained(graph).len());
    // Two projectors with biases: 4 and 6 tensors. Three layers of seven LoRA pairs, or of nine tensors of their own.
    assert_eq!(counts, [0, 4, 4 + 6 + 3 * 7 * 2, 4 + 6 + 3 * 9 + 3]);
    let texts = graphs.map(|graph| graph.to_string().replace(" param{", " weight{"));
    assert!(texts.iter().all(|text| *text == texts[0]));
}

/// Where only the last positions are wanted, they are the same, and so are all gradients.
#[test]
fn the_last_state_may_be_that_of_the_last_positions() {
    let fixture = Fixture::new("gqa", lora(4, 8.0, &LinearMap::ALL), &[2], 40, 512);
    let config = &fixture.config.text;
    let (tokens, wanted) = (9, 3);
    let outcome = |tail: usize| {
        let mut g = Graph::new();
        let h0 = g.input("h0", DType::F32, &[2, tokens, config.hidden_size]);
        let (adapters, policy) = (Some(&fixture.adapters), Trainable::LORA);
        let residual = Residual { layers: vec![config.layers], value: h0 };
        let h = *llama::hidden_states(&mut g, config, adapters, Some(&residual), policy, h0, tail).last().unwrap();
        let h = llama::tail(&mut g, h, 1, wanted);
        g.output("h", h);
        let squares = g.mul(h, h);
        let loss = g.sum_all(squares);
        let wanted: Vec<(String, Value)> = g
            .leaves()
            .filter(|leaf| leaf.kind == LeafKind::Param || leaf.kind == LeafKind::Input)
            .map(|leaf| (leaf.name.to_owned(), leaf.value))
            .collect();
        let values: Vec<Value> = wanted.iter().map(|&(_, value)| value).collect();
        for ((name, _), gradient) in wanted.iter().zip(gradients(&mut g, loss, &values)) {
            g.output(format!("{name}.grad"), gradient.unwrap());
        }
        g.verify().unwrap();
        let mut leaves = fixture.leaves(&g);
        let h0 = TensorType::f32([2, tokens, config.hidden_size]);
        leaves.insert("h0".into(), Tensor::from_fn(&h0, |at| (at[0] + at[1] * 7 + at[2]) as f64 % 5.0 - 2.0));
        evaluate_outputs(&g, &leaves).unwrap()
    };
    let (whole, short) = (outcome(tokens), outcome(wanted));
    for (name, expected) in &whole {
        assert!(expected.data.iter().any(|&value| value != 0.0), "{name} is zero");
        assert!(distance(&short[name], expected) < 1e-10, "{name}");
    }
}

#[test]
fn dropout_depends_on_the_key_alone() {
    let fixture = Fixture::new("gqa", lora(4, 8.0, &[LinearMap::Q, LinearMap::V]), &[2], 40, 512);
    let config = &fixture.config.text;
    let states = |p: f64, key: u32| {
        let mut g = Graph::new();
        let h0 = g.input("h0", DType::F32, &[1, 8, config.hidden_size]);
        let noise = Noise { key: fixture.shape.input(&mut g, BatchInput::RandomKey) };
        let adapters = Adapters { dropout: Some(Dropout { p, noise }), ..fixture.adapters.clone() };
        let h = *llama::hidden_states(&mut g, config, Some(&adapters), None, Trainable::LORA, h0, 8).last().unwrap();
        g.output("h", h);
        g.verify().unwrap();
        let mut leaves = fixture.leaves(&g);
        leaves.insert("random_key".into(), Tensor::new(TensorType::u32([]), vec![f64::from(key)]));
        leaves.insert(
            "h0".into(),
            Tensor::from_fn(&TensorType::f32([1, 8, config.hidden_size]), |at| (at[1] * 7 + at[2]) as f64 % 5.0 - 2.0),
        );
        evaluate_outputs(&g, &leaves).unwrap().remove("h").unwrap()
    };
    let none = states(0.0, 1);
    assert!(distance(&states(0.0, 2), &none) == 0.0);
    assert_eq!(states(0.3, 1), states(0.3, 1));
    let (one, two) = (states(0.3, 1), states(0.3, 2));
    assert!(distance(&one, &none) > 1e-3 && distance(&two, &none) > 1e-3 && distance(&one, &two) > 1e-3);
}

#[test]
fn teacher_pixels_follow_normalisation_and_size() {
    let mut g = Graph::new();
    let ty = TensorType::f32([2, 3, 3, 4]);
    let x = g.input("x", ty.dtype, &ty.shape);
    let from = PixelNorm { mean: [0.1, 0.2, 0.3], std: [0.5, 0.25, 2.0] };
    let same = pixels::renormalise(&mut g, x, from, from);
    let same = pixels::resize_bilinear(&mut g, same, 4);
    g.output("wide", same);
    let native = pixels::renormalise(&mut g, x, from, PixelNorm::IMAGENET);
    g.output("native", native);
    g.verify().unwrap();
    let value = |at: &[usize]| (at[0] * 5 + at[1] * 3 + at[2] * 2 + at[3]) as f64;
    let mut leaves = HashMap::from([("x".to_owned(), Tensor::from_fn(&ty, value))]);
    for leaf in g.leaves().filter(|leaf| leaf.name != "x") {
        let content = LeafSource::of(leaf.name).content(|_, name| Err(name.to_owned())).unwrap();
        leaves.insert(leaf.name.into(), Tensor::new(leaf.ty.clone(), content.into_iter().map(f64::from).collect()));
    }
    let results = evaluate_outputs(&g, &leaves).unwrap();
    // Width is unchanged, three rows become four: rows at 0, 0.625, 1.375 and 2.
    let rows = [0.0, 0.625, 1.375, 2.0];
    let wide =
        Tensor::from_fn(&TensorType::f32([2, 3, 4, 4]), |at| value(&[at[0], at[1], 0, at[3]]) + 2.0 * rows[at[2]]);
    assert!(distance(&results["wide"], &wide) < 1e-7);
    let to = PixelNorm::IMAGENET;
    let native =
        Tensor::from_fn(&ty, |at| (value(at) * from.std[at[1]] + from.mean[at[1]] - to.mean[at[1]]) / to.std[at[1]]);
    assert!(distance(&results["native"], &native) < 1e-12);
}

/// Vicuna-7B behind CLIP-L/14-336 with DINOv2-B/14, as published, for a batch of four with full sequences.
#[test]
fn a_model_of_true_size_is_built_from_its_configuration() {
    let config = LlavaConfig::from_json(
        Path::new("config.json"),
        br#"{"model_type": "llava", "text_config": {"model_type": "llama", "rms_norm_eps": 1e-05, "vocab_size": 32064}}"#,
    )
    .unwrap();
    let teacher =
        Dinov2Config::from_json(Path::new("config.json"), br#"{"model_type": "dinov2", "image_size": 518}"#).unwrap();
    let shape = BatchShape::new(&config, 4, 2048, 4, 512);
    let net = network(
        &config,
        &teacher,
        &lora(128, 256.0, &LinearMap::ALL),
        Trainable::LORA,
        &shape,
        &alignment(&[16], 2048, 768),
        PixelNorm::NONE,
    );
    net.graph.verify().unwrap();
    let ty = |name: &str| {
        let found = net.graph.outputs().iter().find(|(output, _)| output == name);
        net.graph.shape(found.unwrap().1).to_vec()
    };
    assert_eq!(ty("clip"), [2304, 1024]);
    assert_eq!(ty("target"), [2304, 768]);
    assert_eq!(ty("hidden.0"), [4, 2048, 4096]);
    assert_eq!(ty("hidden.32"), [4, 2048, 4096]);
    assert_eq!(ty("logits"), [512, 32064]);
    let count = |part: &str| -> usize {
        let params = trained(&net.graph);
        params.iter().filter(|(name, _)| name.contains(part)).map(|(_, value)| net.graph.ty(*value).len()).sum()
    };
    assert_eq!(
        [count("lora_"), count("multi_modal_projector"), count("alignment_projector")],
        [319_815_680, 20_979_712, 14_160_640]
    );
    assert!(net.graph.len() < 5000, "{} nodes", net.graph.len());
    let names: Vec<&str> = net.graph.leaves().map(|leaf| leaf.name).collect();
    assert!(names.contains(&"teacher.embeddings.position_embeddings@24x24,bicubic"));
    assert!(names.contains(&"rope.cos@2048x64,theta=10000"));
    assert!(!names.iter().any(|name| name.contains("encoder.layers.23")), "the last block of the tower is not needed");
}

/// DINOv2-g with registers: SwiGLU, and a table that is resampled with antialiasing.
#[test]
fn registers_and_gated_feed_forward_have_the_right_shapes() {
    let config = Dinov2Config::from_json(
        Path::new("config.json"),
        br#"{"model_type": "dinov2_with_registers", "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24,
            "use_swiglu_ffn": true, "image_size": 518, "patch_size": 14}"#,
    )
    .unwrap();
    let mut g = Graph::new();
    let x = g.input("pixels", DType::F32, &[2, 3, 336, 336]);
    let features = config.features(&mut g, x, None);
    g.output("features", features);
    g.verify().unwrap();
    assert_eq!(g.shape(features), [1152, 1536]);
    let shapes: HashMap<&str, &[usize]> = g.leaves().map(|leaf| (leaf.name, leaf.ty.shape.as_slice())).collect();
    assert_eq!(shapes["teacher.encoder.layer.39.mlp.weights_in.weight"], [8192, 1536]);
    assert_eq!(shapes["teacher.embeddings.register_tokens"], [1, 4, 1536]);
    assert_eq!(shapes["teacher.embeddings.position_embeddings@24x24,antialiased_bicubic"], [1, 577, 1536]);
}

fn lora(rank: usize, alpha: f64, targets: &[LinearMap]) -> Adapters {
    Adapters { rank, alpha, dropout: None, targets: targets.to_vec() }
}

/// Aligned layers with their projectors; all share one here.
fn alignment(layers: &[usize], hidden: usize, outputs: usize) -> Vec<(usize, Alignment)> {
    layers.iter().map(|&layer| (layer, Alignment { hidden, outputs, index: None })).collect()
}

/// A network with its losses.
struct Network {
    graph: Graph,
    lm: Value,
    vra: Value,
}

/// The forward half of a training step: outputs `clip`, `target`, `hidden.k`, `logits`, `lm` and `vra`.
fn network(
    config: &LlavaConfig,
    teacher: &Dinov2Config,
    adapters: &Adapters,
    policy: Trainable,
    shape: &BatchShape,
    alignment: &[(usize, Alignment)],
    norm: PixelNorm,
) -> Network {
    let mut graph = Graph::new();
    let g = &mut graph;
    let x = shape.input(g, BatchInput::Pixels);
    let features = vision::features(g, config, x);
    let path =
        InputPath { from: norm, native: true, grid: config.vision.grid(), size: InputSize::Grid, positions: None };
    let target = teachers::targets(g, teacher, &path, x);

    let tokens = projector::multi_modal(g, config, policy, features);
    let visual = Visual { tokens, index: shape.input(g, BatchInput::VisualIndex), newline: None };
    let ids = shape.input(g, BatchInput::TokenIds);
    let h0 = llava::embed(g, &config.text, policy, [shape.batch, shape.tokens], ids, Some(visual));
    let states = llama::hidden_states(g, &config.text, Some(adapters), None, policy, h0, shape.tail);
    let positions = shape.input(g, BatchInput::TargetPositions);
    let logits = llava::logits_at(g, &config.text, policy, states[config.text.layers], positions);

    let target_ids = shape.input(g, BatchInput::TargetIds);
    let weights = shape.input(g, BatchInput::TargetWeights);
    let losses = g.cross_entropy(logits, target_ids);
    let lm = weighted_sum(g, losses, weights);
    let positions = shape.input(g, BatchInput::VraPositions);
    let weights = shape.input(g, BatchInput::VraWeights);
    let mut vra = g.constant(DType::F32, 0.0, &[]);
    for (layer, projector) in alignment {
        let rows = llava::rows_at(g, states[*layer], positions);
        let projected = projector.project(g, policy, rows);
        let cosines = g.cosine_align(projected, target);
        let mean = weighted_sum(g, cosines, weights);
        let mean = g.scale(mean, -1.0 / alignment.len() as f64);
        vra = g.add(vra, mean);
    }

    for (name, value) in [("clip", features), ("target", target), ("logits", logits), ("lm", lm), ("vra", vra)] {
        g.output(name, value);
    }
    for (index, state) in states.into_iter().enumerate() {
        g.output(format!("hidden.{index}"), state);
    }
    Network { graph, lm, vra }
}

fn weighted_sum(g: &mut Graph, x: Value, weights: Value) -> Value {
    let x = g.mul(x, weights);
    g.sum_all(x)
}

fn trained(graph: &Graph) -> Vec<(String, Value)> {
    let params = graph.leaves().filter(|leaf| leaf.kind == LeafKind::Param);
    params.map(|leaf| (leaf.name.to_owned(), leaf.value)).collect()
}

/// One of the reference's cases: its first micro-batch, and what the library makes of it.
struct Fixture {
    dir: PathBuf,
    config: LlavaConfig,
    teacher: Dinov2Config,
    adapters: Adapters,
    alignment: Vec<(usize, Alignment)>,
    norm: PixelNorm,
    shape: BatchShape,
    inputs: HashMap<String, Tensor>,
    expected: Json,
    tensors: TensorFile,
    /// Positions of each row without its padding.
    lengths: Vec<usize>,
    /// The picture of each row, if it has one.
    pictures: Vec<Option<usize>>,
}

impl Fixture {
    fn new(name: &str, adapters: Adapters, layers: &[usize], projector_dim: usize, max_length: usize) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let dir = root.join(name);
        let config = LlavaConfig::from_dir(&dir.join("llava")).unwrap();
        let teacher = Dinov2Config::from_dir(&root.join("shared/dinov2")).unwrap();
        let (mean, std) = ImageProcessorConfig::from_dir(&dir.join("llava")).unwrap().normalize.unwrap();
        let expected: Json = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        let tensors = TensorFile::open(&dir.join("expected.safetensors")).unwrap();
        let mut batch = Batch::new(config.visual_tokens());
        for (index, row) in expected["rows"].as_array().unwrap().iter().enumerate() {
            let sample = &expected["samples"][row["sample"].as_u64().unwrap() as usize];
            let picture = (!sample["image"].is_null())
                .then(|| f64s(&tensors.get(&format!("pixels.{index}")).unwrap().to_f32().unwrap()));
            batch.push(sample, picture, max_length, row["contributes"] == Json::Bool(true));
            assert_eq!(batch.rows[index].len() as u64, row["length"].as_u64().unwrap());
        }
        let (shape, inputs) = batch.inputs(&config);
        Self {
            alignment: alignment(layers, projector_dim, teacher.hidden_size),
            lengths: batch.rows.iter().map(Vec::len).collect(),
            pictures: batch.pictures,
            norm: PixelNorm { mean, std },
            dir,
            config,
            teacher,
            adapters,
            shape,
            inputs,
            expected,
            tensors,
        }
    }

    fn build(&self, policy: Trainable) -> Network {
        let net = network(&self.config, &self.teacher, &self.adapters, policy, &self.shape, &self.alignment, self.norm);
        net.graph.verify().unwrap();
        net
    }

    /// Compares features, states and logits, row by row.
    fn check(&self) {
        let results = self.evaluate(&self.build(Trainable::LORA).graph);
        let mut rows = HashMap::new();
        let mut first_target = 0;
        for (row, &length) in self.lengths.iter().enumerate() {
            for layer in 0..=self.config.text.layers {
                let state = &results[&format!("hidden.{layer}")];
                rows.insert(format!("hidden.{layer}.{row}"), slice_rows(state, row * self.shape.tokens, length));
            }
            let n_targets = self.expected["rows"][row]["targets"].as_u64().unwrap() as usize;
            rows.insert(format!("logits.{row}"), slice_rows(&results["logits"], first_target, n_targets));
            first_target += n_targets;
            if let Some(picture) = self.pictures[row] {
                let n = self.shape.visual_tokens;
                rows.insert(format!("clip.{row}"), slice_rows(&results["clip"], picture * n, n));
                rows.insert(format!("target.{row}"), slice_rows(&results["target"], picture * n, n));
            }
        }
        let compared: usize =
            ["hidden.", "logits.", "clip.", "target."].map(|kind| self.compare(&rows, kind)).iter().sum();
        assert!(compared > 2 * self.lengths.len());
    }

    /// Compares each expected tensor whose name starts with `kind`, and returns their number.
    fn compare(&self, results: &HashMap<String, Tensor>, kind: &str) -> usize {
        let names: Vec<&str> = self.tensors.names().filter(|name| name.starts_with(kind)).collect();
        assert!(!names.is_empty());
        for name in &names {
            let view = self.tensors.get(name).unwrap();
            let expected = Tensor::f32(view.shape(), f64s(&view.to_f32().unwrap()));
            let error = distance(&results[*name], &expected);
            assert!(error < TOLERANCE, "{name}: {error}");
        }
        names.len()
    }

    fn evaluate(&self, graph: &Graph) -> HashMap<String, Tensor> {
        let mut leaves = self.leaves(graph);
        leaves.extend(self.inputs.clone());
        evaluate_outputs(graph, &leaves).unwrap()
    }

    /// The content of all weights and parameters.
    fn leaves(&self, graph: &Graph) -> HashMap<String, Tensor> {
        let model = Checkpoint::open(&self.dir.join("llava"), NameMap::Llava).unwrap();
        let teacher = Checkpoint::open(&self.dir.join("../shared/dinov2"), NameMap::Dinov2).unwrap();
        let files = ["adapter_model", "mm_projector", "alignment_projector"]
            .map(|file| TensorFile::open(&self.dir.join(format!("adapter/{file}.safetensors"))).unwrap());
        let load = |origin: Origin, name: &str| {
            let trained = files.iter().find_map(|file| {
                let key = file.names().find(|key| NameMap::Llava.canonical(key) == [name])?;
                Some(file.get(key).unwrap())
            });
            let view = match origin {
                Origin::Teacher => teacher.get(name),
                Origin::Model => trained.map_or_else(|| model.get(name), Ok),
                Origin::Adapter | Origin::Vae => Ok(trained.unwrap_or_else(|| panic!("{name} is in no file"))),
            }?;
            Ok::<_, viral_model::weights::CheckpointError>((view.shape().to_vec(), view.to_f32()?))
        };
        let loaded = graph.leaves().filter(|leaf| leaf.kind != LeafKind::Input);
        loaded
            .map(|leaf| {
                let content = LeafSource::of(leaf.name).content(load).unwrap();
                (leaf.name.to_owned(), Tensor::new(leaf.ty.clone(), f64s(&content)))
            })
            .collect()
    }
}

/// What stands at a position.
enum Place {
    Text { id: f64, label: i64 },
    Visual { row: usize },
}

/// A micro-batch under construction.
struct Batch {
    visual_tokens: usize,
    rows: Vec<Vec<Place>>,
    pictures: Vec<Option<usize>>,
    contributes: Vec<bool>,
    pixels: Vec<f64>,
}

impl Batch {
    fn new(visual_tokens: usize) -> Self {
        Self { visual_tokens, rows: vec![], pictures: vec![], contributes: vec![], pixels: vec![] }
    }

    fn push(&mut self, sample: &Json, picture: Option<Vec<f64>>, max_length: usize, contributes: bool) {
        /// Stands for all visual tokens of the picture.
        const PICTURE: i64 = -200;
        let index = self.pictures.iter().flatten().count();
        let mut row = Vec::new();
        for (id, label) in sample["ids"].as_array().unwrap().iter().zip(sample["labels"].as_array().unwrap()) {
            match id.as_i64().unwrap() {
                PICTURE => {
                    row.extend((0..self.visual_tokens).map(|n| Place::Visual { row: index * self.visual_tokens + n }))
                }
                id => row.push(Place::Text { id: id as f64, label: label.as_i64().unwrap() }),
            }
        }
        row.truncate(max_length);
        self.rows.push(row);
        self.contributes.push(contributes);
        self.pictures.push(picture.is_some().then_some(index));
        self.pixels.extend(picture.unwrap_or_default());
    }

    fn inputs(&self, config: &LlavaConfig) -> (BatchShape, HashMap<String, Tensor>) {
        const NOTHING: f64 = NO_ROW as f64;
        let tokens = self.rows.iter().map(Vec::len).max().unwrap();
        let images = self.pictures.iter().flatten().count();
        let (mut target_positions, mut target_ids) = (vec![], vec![]);
        let mut token_ids = vec![NOTHING; self.rows.len() * tokens];
        let mut visual_index = token_ids.clone();
        let mut vra_positions = vec![NOTHING; images * self.visual_tokens];
        let mut vra_weights = vec![0.0; vra_positions.len()];
        let contributing = self.contributes.iter().filter(|is| **is).count();
        for (b, row) in self.rows.iter().enumerate() {
            for (t, place) in row.iter().enumerate() {
                let position = b * tokens + t;
                match *place {
                    Place::Text { id, label } => {
                        token_ids[position] = id;
                        if label >= 0 && t > 0 {
                            target_positions.push((position - 1) as f64);
                            target_ids.push(label as f64);
                        }
                    }
                    Place::Visual { row } => {
                        visual_index[position] = row as f64;
                        if self.contributes[b] {
                            vra_positions[row] = position as f64;
                            vra_weights[row] = 1.0 / (self.visual_tokens * contributing) as f64;
                        }
                    }
                }
            }
        }
        let shape = BatchShape::new(config, self.rows.len(), tokens, images, target_ids.len());
        let target_weights = vec![1.0 / target_ids.len() as f64; target_ids.len()];
        let contents = [
            (BatchInput::Pixels, self.pixels.clone()),
            (BatchInput::TokenIds, token_ids),
            (BatchInput::VisualIndex, visual_index),
            (BatchInput::TargetPositions, target_positions),
            (BatchInput::TargetIds, target_ids),
            (BatchInput::TargetWeights, target_weights),
            (BatchInput::VraPositions, vra_positions),
            (BatchInput::VraWeights, vra_weights),
        ];
        (
            shape,
            contents
                .into_iter()
                .map(|(input, data)| (input.name().into(), Tensor::new(shape.ty(input), data)))
                .collect(),
        )
    }
}

/// `count` rows of the last axis, from row `first` on.
fn slice_rows(x: &Tensor, first: usize, count: usize) -> Tensor {
    let width = *x.ty.shape.last().unwrap();
    Tensor::f32([count, width], x.data[first * width..(first + count) * width].to_vec())
}

/// Euclidean distance relative to the norm of `b`.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.ty, b.ty);
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.data.iter().zip(&b.data).map(|(a, b)| a - b)) / norm(&mut b.data.iter().copied())
}

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}
