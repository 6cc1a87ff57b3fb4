//! Reading and writing an adapter directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::targets::path;
use super::{AdapterError, LoraConfig, ResidualConfig};
use crate::config::{LlavaConfig, TextConfig};
use crate::graph::{LinearMap, adapter_key};
use crate::weights::{
    CheckpointError, Inventory, TensorFile, TensorOut, TensorSpec, llava_name, pytorch_pieces, safetensors_pieces,
};

const CONFIG: &str = "adapter_config.json";
const LORA: &str = "adapter_model.safetensors";
const PROJECTOR: &str = "mm_projector.safetensors";
/// The projector as the original code reads it after the first stage.
const ORIGINAL_PROJECTOR: &str = "mm_projector.bin";
const RESIDUAL: &str = "residual_config.json";
/// Files of the modules around the decoder: the prefix of their tensors, the name, and what decides their form.
const MODULES: [(&str, &str, &str); 3] = [
    (
        "alignment_projector.",
        "alignment_projector.safetensors",
        "check vra.enabled, vra.target, vra.layers, vra.projector_dim, vra.multiple_projectors and the teacher",
    ),
    ("residual_projector.", "residual_projector.safetensors", "check residual.enabled and residual.source"),
    ("denoiser.", "denoiser.safetensors", "check ross.enabled, ross.width, ross.depth and the autoencoder"),
];
/// All trained tensors but LoRA's, as the original code writes them, often beside files with a part of the same.
const OTHERS: &str = "non_lora_trainables.safetensors";

/// A trained tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub values: Vec<f32>,
}

/// A file of an adapter directory.
#[derive(Clone, Debug)]
pub struct AdapterFile<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content, in pieces that follow each other.
    pub pieces: Vec<Cow<'a, [u8]>>,
}

/// The contents of an adapter directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Shape of the LoRA part; `None` if there is none.
    pub lora: Option<LoraConfig>,
    /// How visual tokens are added again; `None` if they are not, or if nothing says so.
    pub residual: Option<ResidualConfig>,
    /// Trained tensors by canonical name: `model.language_model.layers.N.….lora_A.weight`,
    /// `model.multi_modal_projector.…`, `alignment_projector.…`, `residual_projector.…`, `denoiser.…`.
    pub parameters: BTreeMap<String, Parameter>,
}

impl Adapter {
    /// Reads a directory. `modules` lists the tensors of the modules that the run has besides the model's own: of
    /// alignment projectors, the residual's adapter and the denoiser.
    ///
    /// Each part may be absent as a whole; the caller then starts it from the base model or afresh. A
    /// part that is there must be complete, and must be one that the run knows. Files may also have the names and form
    /// of the original code: `.bin`, and `non_lora_trainables` for all but LoRA.
    ///
    /// # Errors
    /// The directory holds no part, a file is damaged, the configuration asks for something that is not implemented, a
    /// key matches no tensor, or a tensor of a part has no key or another shape.
    pub fn read(dir: &Path, model: &LlavaConfig, modules: &[TensorSpec]) -> Result<Self, AdapterError> {
        let mut adapter = Self { lora: None, residual: None, parameters: BTreeMap::new() };
        let has = |name: &str| companion(dir, name).is_file();
        if dir.join(CONFIG).is_file() || has(LORA) {
            let lora = LoraConfig::from_dir(dir, &model.text)?;
            let required = lora_tensors(&lora, &model.text);
            adapter.load(
                &companion(dir, LORA),
                required,
                "adapters are supported on the language model's linear layers only",
            )?;
            adapter.lora = Some(lora);
        }
        let projector = Inventory::multi_modal_projector(model).required;
        if has(OTHERS) {
            adapter.load_others(&companion(dir, OTHERS), &projector, modules)?;
        }
        if has(PROJECTOR) {
            adapter.load(&companion(dir, PROJECTOR), projector, "check that it belongs to this model")?;
        }
        for (prefix, file, hint) in MODULES.into_iter().filter(|(_, file, _)| has(file)) {
            let required = modules.iter().filter(|tensor| tensor.name.starts_with(prefix)).cloned().collect();
            adapter.load(&companion(dir, file), required, hint)?;
        }
        if dir.join(RESIDUAL).is_file() {
            adapter.residual = Some(ResidualConfig::read(&dir.join(RESIDUAL))?);
        }
        if adapter.parameters.is_empty() {
            let problem = "there is no adapter_config.json and no projector file in it; check the path";
            return Err(AdapterError::NotAnAdapter { dir: dir.to_path_buf(), problem });
        }
        Ok(adapter)
    }

    /// Writes the directory, which is made if necessary. Each file appears complete or not at all.
    ///
    /// # Errors
    /// As [`Adapter::files`], or the disk refuses.
    pub fn write(&self, dir: &Path) -> Result<(), AdapterError> {
        let files = self.files(dir)?;
        let io = |path: &Path, source| AdapterError::Io { path: path.to_path_buf(), source };
        std::fs::create_dir_all(dir).map_err(|source| io(dir, source))?;
        for file in files {
            let path = dir.join(file.name);
            let partial = dir.join(format!("{}.partial", file.name));
            let written = std::fs::File::create(&partial).and_then(|mut out| {
                file.pieces.iter().try_for_each(|piece| out.write_all(piece))?;
                out.sync_all()?;
                std::fs::rename(&partial, &path)
            });
            written.map_err(|source| io(&path, source))?;
        }
        Ok(())
    }

    /// The directory's files as they will be, for whoever writes them. `dir` is for messages.
    ///
    /// # Errors
    /// A tensor belongs to no part, or the LoRA part has tensors without a configuration or the reverse.
    pub fn files(&self, dir: &Path) -> Result<Vec<AdapterFile<'_>>, AdapterError> {
        let mut parts: BTreeMap<&str, Vec<TensorOut<'_>>> = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let key = adapter_key(name);
            let problem = "it is no part of an adapter";
            let file = file_of(&key).ok_or_else(|| not_writable(dir, name, problem))?;
            parts.entry(file).or_default().push(TensorOut::f32(key, parameter.shape.clone(), &parameter.values));
        }
        match (&self.lora, parts.contains_key(LORA)) {
            (Some(_), true) | (None, false) => {}
            (Some(_), false) => return Err(not_writable(dir, CONFIG, "there are no LoRA tensors")),
            (None, true) => return Err(not_writable(dir, LORA, "the LoRA configuration is missing")),
        }
        let mut files = Vec::new();
        for (name, tensors) in parts {
            files.push(AdapterFile { name, pieces: safetensors_pieces(&dir.join(name), &tensors)? });
        }
        let texts = [
            (CONFIG, self.lora.as_ref().map(LoraConfig::to_json)),
            (RESIDUAL, self.residual.as_ref().map(ResidualConfig::to_json)),
        ];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            files.push(AdapterFile { name, pieces: vec![Cow::Owned(text.into_bytes())] });
        }
        Ok(files)
    }

    /// The multi-modal projector as the original code saves it after the first stage: `mm_projector.bin` with the keys
    /// `model.mm_projector.{0,2}.{weight,bias}`. `dir` is for messages.
    ///
    /// # Errors
    /// A projector of 4 GiB or more.
    pub fn original_projector(&self, dir: &Path) -> Result<AdapterFile<'_>, AdapterError> {
        const PARTS: [(&str, &str); 2] = [("linear_1.", "0."), ("linear_2.", "2.")];
        let original = |(name, parameter): (&String, &'_ Parameter)| {
            let part = name.strip_prefix("model.multi_modal_projector.")?;
            let rest = |(ours, theirs): (&str, &str)| Some(format!("{theirs}{}", part.strip_prefix(ours)?));
            let key = format!("model.mm_projector.{}", PARTS.into_iter().find_map(rest)?);
            Some((key, parameter.shape.clone()))
        };
        let tensors = self.parameters.iter().filter_map(|entry| {
            let (key, shape) = original(entry)?;
            Some(TensorOut::f32(key, shape, &entry.1.values))
        });
        let pieces = pytorch_pieces(&dir.join(ORIGINAL_PROJECTOR), &tensors.collect::<Vec<_>>())?;
        Ok(AdapterFile { name: ORIGINAL_PROJECTOR, pieces })
    }

    /// Whether the tensor of this canonical name belongs into an adapter directory; others are the model's own.
    pub fn holds(name: &str) -> bool {
        file_of(&adapter_key(name)).is_some()
    }

    /// Loads a file whose keys, in any dialect, must be exactly the required tensors.
    fn load(&mut self, path: &Path, required: Vec<TensorSpec>, hint: &'static str) -> Result<(), CheckpointError> {
        let file = TensorFile::open(path)?;
        let mut stored: BTreeMap<String, &str> = BTreeMap::new();
        for key in file.names() {
            let name = llava_name(key);
            if let Some(first) = stored.get(&name) {
                return Err(CheckpointError::Duplicate {
                    name,
                    first: (*first).to_string(),
                    first_file: path.to_path_buf(),
                    second: key.to_string(),
                    second_file: path.to_path_buf(),
                });
            }
            stored.insert(name, key);
        }
        let mut views = BTreeMap::new();
        for (name, key) in stored {
            views.insert(name, file.get(key)?);
        }
        let found = views.iter().map(|(name, view)| (name.as_str(), view.shape()));
        Inventory { required, ..Inventory::default() }.compare(path, found, hint)?;
        for (name, view) in views {
            let parameter = Parameter { shape: view.shape().to_vec(), values: view.to_f32()? };
            match self.parameters.get(&name) {
                Some(other) if *other != parameter => {
                    let problem = format!("tensor {name} has other elements than in {OTHERS} or its .bin beside it");
                    return Err(CheckpointError::Contradiction { path: path.to_path_buf(), problem });
                }
                _ => self.parameters.insert(name, parameter),
            };
        }
        Ok(())
    }

    /// Loads the file of all trained tensors but LoRA's, in which each part may be absent as a whole.
    fn load_others(
        &mut self,
        path: &Path,
        projector: &[TensorSpec],
        modules: &[TensorSpec],
    ) -> Result<(), CheckpointError> {
        let names: Vec<String> = TensorFile::open(path)?.names().map(llava_name).collect();
        let part = |prefix| modules.iter().filter(move |tensor: &&TensorSpec| tensor.name.starts_with(prefix));
        let parts = MODULES.map(|(prefix, _, _)| part(prefix).cloned().collect::<Vec<_>>());
        let is_there = |part: &&[TensorSpec]| part.iter().any(|tensor| names.contains(&tensor.name));
        let parts = [projector].into_iter().chain(parts.iter().map(Vec::as_slice)).filter(is_there);
        let required = parts.flatten().cloned().collect();
        self.load(path, required, "check the sections [vra], [residual] and [ross]")
    }
}

/// A file of an adapter directory, or the one in its place that PyTorch's older format has.
fn companion(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let older = path.with_extension("bin");
    if !path.exists() && older.exists() { older } else { path }
}

/// The file that the tensor with this key belongs to.
fn file_of(key: &str) -> Option<&'static str> {
    let modules = MODULES.map(|(prefix, file, _)| (prefix, file));
    let mut files = [("base_model.model.", LORA), ("multi_modal_projector.", PROJECTOR)].into_iter().chain(modules);
    files.find_map(|(prefix, file)| key.starts_with(prefix).then_some(file))
}

/// A (rank, inputs) and B (outputs, rank) of every adapted linear map.
fn lora_tensors(lora: &LoraConfig, text: &TextConfig) -> Vec<TensorSpec> {
    let mut tensors = Vec::new();
    for layer in 0..text.layers {
        for map in &lora.targets {
            let path = path(layer, *map);
            let [outputs, inputs] = shape(*map, text);
            tensors.push(TensorSpec::new(format!("{path}.lora_A.weight"), [lora.rank, inputs]));
            tensors.push(TensorSpec::new(format!("{path}.lora_B.weight"), [outputs, lora.rank]));
        }
    }
    tensors
}

/// Rows and columns of a linear map's weight.
fn shape(map: LinearMap, text: &TextConfig) -> [usize; 2] {
    let (hidden, wide) = (text.hidden_size, text.intermediate_size);
    match map {
        LinearMap::Q => [text.query_width(), hidden],
        LinearMap::K | LinearMap::V => [text.kv_width(), hidden],
        LinearMap::O => [hidden, text.query_width()],
        LinearMap::Gate | LinearMap::Up => [wide, hidden],
        LinearMap::Down => [hidden, wide],
    }
}

fn not_writable(dir: &Path, name: &str, problem: &'static str) -> AdapterError {
    AdapterError::NotWritable { dir: dir.to_path_buf(), name: name.to_string(), problem }
}
