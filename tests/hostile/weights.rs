//! Safetensors files and indexes that lie.

use std::fs;
use std::path::Path;

use serde_json::json;
use viral_model::config::LlavaConfig;
use viral_model::weights::{Checkpoint, Inventory, NameMap};

use super::Corpus;

fn file(length: u64, header: &str, data: usize) -> Vec<u8> {
    [length.to_le_bytes().as_slice(), header.as_bytes(), &vec![0; data]].concat()
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    file(header.len() as u64, header, data)
}

pub(crate) fn headers(corpus: &mut Corpus) {
    let tensor = |shape: &str, offsets: &str| {
        with_header(&format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#), 16)
    };
    let two = |first: &str, second: &str| {
        let entry = |offsets: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
        with_header(&format!(r#"{{"a":{},"b":{}}}"#, entry(first), entry(second)), 16)
    };
    let nested = "[".repeat(100_000);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a header of 2^64 bytes", file(u64::MAX, "{}", 0)),
        ("a header of 90 MB that is not there", file(90_000_000, "{}", 0)),
        ("nested lists", with_header(&nested, 0)),
        ("nested metadata", with_header(&format!(r#"{{"__metadata__":{nested}"#), 0)),
        ("no JSON", with_header("tensor", 16)),
        ("no object", with_header("[]", 0)),
        ("a product that overflows", tensor("[4294967296,4294967296,4294967296]", "[0,16]")),
        ("a size that overflows", tensor("[18446744073709551615]", "[0,16]")),
        ("a negative size", tensor("[-4]", "[0,16]")),
        ("a broken size", tensor("[4.5]", "[0,16]")),
        ("an end before the beginning", tensor("[4]", "[16,0]")),
        ("an end behind the file", tensor("[4000]", "[0,16000]")),
        ("an offset of 2^64", tensor("[4]", "[18446744073709551600,18446744073709551615]")),
        ("overlapping tensors", two("[0,8]", "[4,12]")),
        ("two tensors in one place", two("[0,8]", "[0,8]")),
        ("a gap", two("[0,8]", "[12,20]")),
        ("data that nobody has", tensor("[2]", "[0,8]")),
        ("an unknown type", with_header(r#"{"a":{"dtype":"F7","shape":[],"data_offsets":[0,4]}}"#, 4)),
    ];
    for (what, bytes) in cases {
        corpus.weights(what, "model.bin", &bytes);
    }
}

/// Indexes that point out of the directory, or to what is not there.
pub(crate) fn indexes(corpus: &mut Corpus) {
    let dir = corpus.path("sharded");
    fs::create_dir_all(&dir).unwrap();
    let secret = corpus.path("secret.safetensors");
    fs::write(&secret, with_header(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 16)).unwrap();
    let absolute = secret.display().to_string();
    let mut shards =
        vec!["../secret.safetensors", absolute.as_str(), "a/../../secret.safetensors", "", ".", "/etc/passwd"];
    shards.extend(["missing.safetensors", "C:\\secret.safetensors", "\u{1b}[2J"]);
    if cfg!(unix) {
        #[cfg(unix)]
        std::os::unix::fs::symlink(&secret, dir.join("link.safetensors")).unwrap();
        shards.push("link.safetensors");
    }
    for index in ["model.safetensors.index.json", "pytorch_model.bin.index.json"] {
        for shard in &shards {
            fs::write(dir.join(index), json!({ "weight_map": { "a": shard } }).to_string()).unwrap();
            let what = format!("{index} with shard {shard:?}");
            corpus.refused(&what, index, || Checkpoint::open(&dir, NameMap::Llava));
        }
        for (what, text) in [("no map", "{}"), ("no JSON", "{"), ("numbers", r#"{"weight_map": {"a": 1}}"#)] {
            fs::write(dir.join(index), text).unwrap();
            corpus.refused(what, index, || Checkpoint::open(&dir, NameMap::Llava));
        }
        fs::remove_file(dir.join(index)).unwrap();
    }
}

/// A real model, cut and changed: never the tensors of the whole one without a word.
pub(crate) fn damage(corpus: &mut Corpus) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gqa/llava");
    let model = LlavaConfig::from_dir(&source).unwrap();
    let inventory = Inventory::llava(&model);
    let whole = fs::read(source.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let path = corpus.path("cut.safetensors");
    for end in (0..header).step_by(header / 40).chain((header..whole.len()).step_by(whole.len() / 20)) {
        fs::write(&path, &whole[..end]).unwrap();
        let what = format!("the first {end} bytes of a model");
        corpus.refused(&what, "cut.safetensors", || Checkpoint::open(&path, NameMap::Llava));
    }
    for at in (8..header).step_by(header / 60) {
        let mut changed = whole.clone();
        changed[at] ^= 0x04;
        fs::write(&path, &changed).unwrap();
        let open = || {
            let checkpoint = Checkpoint::open(&path, NameMap::Llava)?;
            checkpoint.check(&inventory)?;
            Ok::<_, viral_model::weights::CheckpointError>(checkpoint)
        };
        // In spaces and metadata a change means nothing.
        if open().is_err() {
            corpus.refused(&format!("a model with byte {at} changed"), "cut.safetensors", open);
        }
    }
}
