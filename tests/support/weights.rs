//! Copies of model and adapter directories whose weight files look different and hold the same.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::json;

use super::runs::file_names;

/// Prefixes of names and what stands in their place; the first one that fits applies.
pub(crate) type Renames<'a> = &'a [(&'a str, &'a str)];

/// From the names of files on the hub to those that the library has in memory now.
pub(crate) const IN_MEMORY: Renames<'static> = &[
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("vision_tower.vision_model.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
];

/// From the names of files on the hub to those of the original LLaVA code.
pub(crate) const ORIGINAL: Renames<'static> = &[
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model."),
    ("vision_tower.", "model.vision_tower.vision_tower."),
    ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
];

/// From the names of adapter files to those that older versions of the libraries wrote.
pub(crate) const OLDER_ADAPTER: Renames<'static> = &[
    ("base_model.model.model.language_model.", "base_model.model.language_model.model."),
    ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
];

/// Copies a model directory, its tensors under other names and dealt out to `shards` files.
pub(crate) fn copy_model(from: &Path, to: &Path, renames: Renames<'_>, shards: usize) {
    let (weights, others): (Vec<String>, Vec<String>) =
        file_names(from).into_iter().partition(|name| name.contains(".safetensors"));
    fs::create_dir_all(to).unwrap();
    for name in others {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
    let weights = weights.iter().filter(|name| name.ends_with(".safetensors"));
    let files: Vec<Vec<u8>> = weights.map(|name| fs::read(from.join(name)).unwrap()).collect();
    let tensors: BTreeMap<String, TensorView<'_>> = files.iter().flat_map(|file| renamed(file, renames)).collect();
    if shards == 1 {
        return write(&to.join("model.safetensors"), tensors);
    }
    let mut index = BTreeMap::new();
    for shard in 0..shards {
        let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let dealt = tensors.iter().skip(shard).step_by(shards).map(|(name, view)| (name.clone(), view.clone()));
        let dealt: BTreeMap<_, _> = dealt.collect();
        index.extend(dealt.keys().map(|name| (name.clone(), file.clone())));
        write(&to.join(file), dealt);
    }
    let index = json!({ "metadata": {}, "weight_map": index });
    fs::write(to.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// Copies an adapter directory, its tensors under other names.
pub(crate) fn copy_adapter(from: &Path, to: &Path, renames: Renames<'_>) {
    fs::create_dir_all(to).unwrap();
    for name in file_names(from) {
        if name.ends_with(".safetensors") {
            let file = fs::read(from.join(&name)).unwrap();
            write(&to.join(name), renamed(&file, renames));
        } else {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

fn renamed<'f>(file: &'f [u8], renames: Renames<'_>) -> BTreeMap<String, TensorView<'f>> {
    let rename = |name: String| {
        let rule = renames.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
        rule.unwrap_or(name)
    };
    let tensors = SafeTensors::deserialize(file).unwrap().tensors();
    tensors.into_iter().map(|(name, view)| (rename(name), view)).collect()
}

fn write(file: &Path, tensors: BTreeMap<String, TensorView<'_>>) {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), file).unwrap();
}
