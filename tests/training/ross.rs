//! The reconstructive objective part by part: its networks against diffusers and PyTorch with weights that are nowhere zero, and
//! runs that stop, remember and go on with it.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::support::cases::read_tensors;
use crate::support::counter::{content, probe};
use crate::support::runs::Run;
use crate::support::torch::{Stored, save};
use crate::support::{Comparison, device, run};
use safetensors::Dtype;
use serde_json::Value as Json;
use viral_compiler::eval::evaluate_outputs;
use viral_compiler::grad::gradients;
use viral_compiler::ir::LeafKind;
use viral_compiler::tensor::Tensor;
use viral_compiler::types::{DType, TensorType};
use viral_compiler::{Graph, Options, Target, compile};
use viral_model::adapter::{Adapter, Parameter};
use viral_model::config::{LlavaConfig, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, VaeConfig};
use viral_model::graph::pixels::PixelNorm;
use viral_model::graph::{LeafSource, Noise, Trainable, vae};
use viral_model::weights::{Inventory, TensorSpec};
use viral_train::Config;
use viral_train::config::{Assignment, Overrides, RossConfig};
use viral_train::objectives::ross::{Reconstruction, loss};

/// Largest error of latents and of a loss, in f64 and on the device.
const VALUES: [f64; 2] = [1e-6, 1e-5];
/// Largest relative error of a gradient, in f64 and on the device.
const GRADIENTS: [f64; 2] = [1e-5, 1e-3];

#[test]
fn latents_are_those_of_diffusers() {
    let mut comparison = Comparison::default();
    for (name, case) in expected()["autoencoders"].as_object().unwrap() {
        let config = vae_config(&case["config"]);
        let [side, grid] = ["side", "grid"].map(|key| case[key].as_u64().unwrap() as usize);
        let mut g = Graph::new();
        let pixels = g.input("pixels", DType::F32, &[2, 3, side, side]);
        let norm = PixelNorm { mean: OPENAI_CLIP_MEAN, std: OPENAI_CLIP_STD };
        let posterior = vae::posterior(&mut g, &config, norm, grid, pixels);
        g.output("posterior", posterior);
        for (found, bound) in evaluated(&g).into_iter().zip(VALUES) {
            compare(&mut comparison, name, "posterior", &found["posterior"], &case["posterior"], bound);
        }
    }
    comparison.finish();
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let mut comparison = Comparison::default();
    let case = &expected()["denoiser"];
    let [pictures, tokens, states] = ["pictures", "tokens", "states"].map(|key| case[key].as_u64().unwrap() as usize);
    let size = |key: &str| case["options"][key].as_u64().unwrap() as usize;
    let [width, depth, heads, repeats] = ["width", "depth", "heads", "repeats"].map(size);
    let config = RossConfig { width, depth, heads, repeats, ..RossConfig::default() };
    let autoencoder = vae_config(&case["autoencoder"]);

    let mut g = Graph::new();
    let key = g.input("key", DType::U32, &[]);
    let states = g.param("states", &[pictures * tokens, states]);
    let posterior = g.input("posterior", DType::F32, &[pictures * tokens, 2 * autoencoder.token_width()]);
    let weights = g.constant(DType::F32, 1.0 / pictures as f64, &[pictures]);
    let (noise, trainable) = (Noise { key }, Trainable::LORA);
    let objective = Reconstruction { config: &config, vae: &autoencoder, states, posterior, weights, noise, trainable };
    let loss = loss(&mut g, &objective);
    let params: Vec<_> = g.leaves().filter(|leaf| leaf.kind == LeafKind::Param).map(|leaf| leaf.value).collect();
    let names: Vec<String> =
        g.leaves().filter(|leaf| leaf.kind == LeafKind::Param).map(|leaf| leaf.name.to_owned()).collect();
    for (name, gradient) in names.iter().zip(gradients(&mut g, loss, &params)) {
        g.output(format!("grad.{name}"), gradient.unwrap());
    }
    let loss = g.reshape(loss, &[1]);
    g.output("loss", loss);

    let gradients = case["gradients"].as_object().unwrap();
    assert_eq!(names.iter().collect::<BTreeSet<_>>(), gradients.keys().collect());
    for (index, found) in evaluated(&g).into_iter().enumerate() {
        let expected = case["loss"].as_f64().unwrap();
        let place = ["in f64", "on the device"][index];
        comparison.note(&format!("loss {place}"), "loss", (found["loss"].data[0] - expected).abs(), VALUES[index]);
        for (name, expected) in gradients {
            let found = &found[&format!("grad.{name}")];
            compare(&mut comparison, place, &format!("grad.{name}"), found, expected, GRADIENTS[index]);
        }
    }
    comparison.finish();
}

/// FLUX's encoder at the size that ROSS uses it at, picture by picture: memory for four activations of 72 MiB, none of a
/// convolution's own.
#[test]
fn the_published_autoencoder_fits_devices_of_default_limits() {
    let config = vae_config(&expected()["flux"]["config"]);
    let parameters: usize =
        Inventory::vae(&config).required.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
    assert_eq!(parameters as u64, expected()["flux"]["parameters"].as_u64().unwrap());
    assert_eq!((config.token_width(), config.picture_side(24)), (64, 384));
    let mut g = Graph::new();
    let pixels = g.input("pixels", DType::F32, &[2, 3, 336, 336]);
    let norm = PixelNorm { mean: OPENAI_CLIP_MEAN, std: OPENAI_CLIP_STD };
    let posterior = vae::posterior(&mut g, &config, norm, 24, pixels);
    g.output("posterior", posterior);
    let plan = compile(&g, &Options::new(Target::baseline())).unwrap_or_else(|error| panic!("{error}"));
    assert!(plan.memory.slots < 384 << 20, "{} MiB", plan.memory.slots >> 20);
}

/// Resumed, remembered and forgotten: noise is a function of step and micro-batch, not of what ran before.
#[test]
fn a_run_that_stops_or_remembers_has_the_bits_of_one_that_does_not() {
    let keys = ["ross.masking=any", "data.order=shuffled", "train.batch=2", "train.accumulation=2", "train.steps=3"];
    let config = load(&keys);
    let whole = Run::new(&config);
    assert!(whole.metrics().iter().all(|step| step.loss_ross > 0.0), "{:?}", whole.metrics());
    let mut forgetful = config.clone();
    forgetful.train.feature_cache = 0;
    let (stopped, stops) = Run::in_single_steps(&forgetful);
    assert_eq!(stops, 2);
    whole.bits().assert_equal(&stopped.bits(), &[], "stopped after every step, nothing remembered");
}

/// The denoiser lies beside the adapter, and a run goes on from it under each of its names.
#[test]
fn a_denoiser_is_saved_and_read_in_every_dialect() {
    let first = Run::new(&load(&["train.steps=2"]));
    let trained = read_tensors(&first.adapter().join("denoiser.safetensors"));
    assert!(trained.keys().all(|key| key.starts_with("denoiser.net.")));
    assert_eq!(trained["denoiser.net.pos_embed"].shape, [1, 16, 16]);

    let folder = tempfile::tempdir().unwrap();
    let mut config = load(&["train.lr=0.0", "train.projector_lr=0.0", "train.steps=1"]);
    let llava = LlavaConfig::from_dir(&config.model.path).unwrap();
    let modules: Vec<TensorSpec> =
        trained.iter().map(|(name, parameter)| TensorSpec::new(name, parameter.shape.clone())).collect();
    for prefix in ["base_model.model.model.denoiser.", "model.mm_inv_projector.", "model.denoiser.", "denoiser."] {
        let stored = |key: &str, parameter: &Parameter| -> (String, Stored) {
            let bytes = parameter.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (key.replacen("denoiser.", prefix, 1), (Dtype::F32, parameter.shape.clone(), bytes))
        };
        let tensors = trained.iter().map(|(key, value)| stored(key, value)).collect();
        save(&folder.path().join("denoiser.bin"), &tensors, true);
        let read = Adapter::read(folder.path(), &llava, &modules).unwrap();
        assert!(read.parameters == trained, "{prefix}");
    }
    config.model.adapter = Some(folder.path().into());
    let again = read_tensors(&Run::new(&config).adapter().join("denoiser.safetensors"));
    assert!(again == trained, "a run that learns nothing leaves what it began with");

    // A denoiser of another shape, or none at all, is not what such files are for.
    for (key, message) in [("ross.width=32", "x_embedder.proj.weight"), ("ross.enabled=false", "check ross.enabled")] {
        let mut other = load(&[key]);
        other.model.adapter = Some(folder.path().into());
        let error = viral_train::engine::Bundle::open(&other).map(drop).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// What a graph yields in f64 and on the device; leaves hold what their names say.
fn evaluated(g: &Graph) -> [HashMap<String, Tensor>; 2] {
    let leaves: HashMap<String, Tensor> = g
        .leaves()
        .map(|leaf| {
            let values: Vec<f64> = match (LeafSource::of(leaf.name), leaf.name) {
                (_, "key") => vec![12345.0],
                (LeafSource::Tensor { name, .. }, _) => {
                    content(&name, &leaf.ty.shape).into_iter().map(f64::from).collect()
                }
                (source, _) => {
                    let shape = match source {
                        LeafSource::Taps { outputs, inputs, .. } => vec![outputs, inputs, 3, 3],
                        _ => Vec::new(),
                    };
                    let load = |_, name: &str| Ok::<_, String>((shape.clone(), content(name, &shape)));
                    source.content(load).unwrap().into_iter().map(f64::from).collect()
                }
            };
            (leaf.name.to_owned(), Tensor::new(TensorType::new(leaf.ty.dtype, leaf.ty.shape.clone()), values))
        })
        .collect();
    [
        evaluate_outputs(g, &leaves).unwrap().into_iter().collect(),
        run(g, &leaves, &Options::new(device().target().clone())),
    ]
}

fn compare(comparison: &mut Comparison, kind: &str, name: &str, found: &Tensor, expected: &Json, bound: f64) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    for (found, number) in probe(name, &found.data).iter().zip(&expected) {
        // A product with numbers uniform in (-1, 1) is about the norm over the root of 3.
        comparison.note(kind, name, (found - number).abs() / expected[0], bound);
    }
}

fn vae_config(json: &Json) -> VaeConfig {
    VaeConfig::from_json(Path::new("config.json"), json.to_string().as_bytes()).unwrap()
}

fn expected() -> Json {
    serde_json::from_slice(&std::fs::read(fixture("networks/ross.json")).unwrap()).unwrap()
}

fn load(keys: &[&str]) -> Config {
    let keys = ["ross.enabled=true", "vra.enabled=false"].iter().chain(keys);
    let set = keys.map(|key| Assignment::from_set(key).unwrap()).collect();
    let config = Config::load(&fixture("objectives/config.toml"), &Overrides { set, ..Overrides::default() });
    config.unwrap_or_else(|error| panic!("{error}"))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
