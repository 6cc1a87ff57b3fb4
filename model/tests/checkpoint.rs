//! Weight files: what is written reads back, and no damage goes unnoticed or panics.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use viral_model::weights::{
    Checkpoint, CheckpointError, Inventory, NameMap, StoredDtype, TensorFile, TensorOut, TensorSpec, write_safetensors,
};

fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 * 0.25 - 1.0).collect()
}

/// Three small tensors, written to `path`.
fn write_sample(path: &Path) {
    let (a, b, c) = (ramp(6), ramp(4), ramp(1));
    let tensors = [
        TensorOut::f32("lm_head.weight", [2, 3], &a),
        TensorOut::f32("model.norm.weight", [4], &b),
        TensorOut::f32("language_model.model.layers.0.mlp.up_proj.weight", [1, 1], &c),
    ];
    write_safetensors(path, &tensors).unwrap();
}

fn sample_inventory() -> Inventory {
    Inventory {
        required: vec![
            TensorSpec::new("lm_head.weight", [2, 3]),
            TensorSpec::new("model.language_model.norm.weight", [4]),
            TensorSpec::new("model.language_model.layers.0.mlp.up_proj.weight", [1, 1]),
        ],
        ..Inventory::default()
    }
}

fn message(result: Result<impl Sized, CheckpointError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn written_tensors_read_back_under_canonical_names() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(&dir.path().join("model.safetensors"));
    let checkpoint = Checkpoint::open(dir.path(), NameMap::Llava).unwrap();
    checkpoint.check(&sample_inventory()).unwrap();
    let view = checkpoint.get("lm_head.weight").unwrap();
    assert_eq!((view.shape(), view.dtype(), view.len()), (&[2, 3][..], StoredDtype::F32, 6));
    assert_eq!(view.to_f32().unwrap(), ramp(6));
    let mut piece = Vec::new();
    assert_eq!(view.elements(1..3, &mut piece).unwrap(), &ramp(6)[1..3]);
    assert_eq!(view.elements(4..8, &mut piece).unwrap(), &ramp(6)[4..]);
    assert!(view.elements(9..12, &mut piece).unwrap().is_empty());
    assert!(message(checkpoint.get("nothing")).contains("has no tensor nothing"));
}

#[test]
fn bytes_do_not_depend_on_the_order_of_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (ramp(3), ramp(2));
    let half = Cow::Owned(vec![0, 60]);
    let tensors = [
        TensorOut::f32("b", [3], &a),
        TensorOut { name: "c".into(), dtype: StoredDtype::F16, shape: vec![1], bytes: half },
        TensorOut::f32("a", [2], &b),
    ];
    let write = |name: &str, tensors: &[TensorOut<'_>]| {
        let path = dir.path().join(name);
        write_safetensors(&path, tensors).unwrap();
        fs::read(path).unwrap()
    };
    let bytes = write("first", &tensors);
    let mut reversed = tensors.clone();
    reversed.reverse();
    assert_eq!(bytes, write("second", &reversed));
    // Wider types first, then by name; the header is padded to a multiple of 8. This is what the reference writes.
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"#,
        r#""b":{"dtype":"F32","shape":[3],"data_offsets":[8,20]},"c":{"dtype":"F16","shape":[1],"data_offsets":[20,22]}}"#
    );
    assert_eq!(bytes[8..8 + header.len()], *header.as_bytes());
    assert_eq!(bytes.len(), 8 + header.len().next_multiple_of(8) + 22);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no partial file stays behind");
}

#[test]
fn impossible_files_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let a = ramp(3);
    let twice = [TensorOut::f32("a", [3], &a), TensorOut::f32("a", [3], &a)];
    assert!(message(write_safetensors(&path, &twice)).contains("tensor a occurs twice"));
    assert!(write_safetensors(&path, &[TensorOut::f32("a", [4], &a)]).is_err());
    assert!(message(write_safetensors(&dir.path().join("no/x"), &[])).contains("cannot write"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn half_types_widen_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    // Every finite f16 and every finite bf16 pattern.
    let f16: Vec<u16> = (0..=u16::MAX).filter(|bits| half::f16::from_bits(*bits).is_finite()).collect();
    let bf16: Vec<u16> = (0..=u16::MAX).filter(|bits| half::bf16::from_bits(*bits).is_finite()).collect();
    let bytes = |bits: &[u16]| Cow::Owned(bits.iter().flat_map(|b| b.to_le_bytes()).collect::<Vec<u8>>());
    let tensors = [
        TensorOut { name: "a".into(), dtype: StoredDtype::F16, shape: vec![f16.len()], bytes: bytes(&f16) },
        TensorOut { name: "b".into(), dtype: StoredDtype::Bf16, shape: vec![bf16.len()], bytes: bytes(&bf16) },
    ];
    write_safetensors(&path, &tensors).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
    let a = file.get("a").unwrap().to_f32().unwrap();
    assert!(a.iter().zip(&f16).all(|(x, bits)| x.to_bits() == half::f16::from_bits(*bits).to_f32().to_bits()));
    let b = file.get("b").unwrap().to_f32().unwrap();
    assert!(b.iter().zip(&bf16).all(|(x, bits)| x.to_bits() == half::bf16::from_bits(*bits).to_f32().to_bits()));
    let mut piece = Vec::new();
    for (name, all) in [("a", &a), ("b", &b)] {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(file.get(name).unwrap().elements(1..3, &mut piece).unwrap()), bits(&all[1..3]), "{name}");
    }
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_safetensors(&path, &[TensorOut::f32("a", [3], &[1.0, f32::NAN, 2.0])]).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let text = message(file.get("a").unwrap().to_f32());
    assert!(text.contains("tensor a holds NaN at element 1"), "{text}");
}

#[test]
fn mismatches_are_listed_together() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(&dir.path().join("model.safetensors"));
    let checkpoint = Checkpoint::open(dir.path(), NameMap::Llava).unwrap();
    let mut inventory = sample_inventory();
    inventory.required[0].shape = vec![3, 3];
    inventory.required[1].name = "absent".into();
    let text = message(checkpoint.check(&inventory));
    assert!(
        text.contains("1 tensor of the wrong shape:\n    lm_head.weight: expected shape [3, 3], found [2, 3]"),
        "{text}"
    );
    assert!(text.contains("1 tensor missing:\n    absent"), "{text}");
    assert!(text.contains("1 tensor left over:\n    model.language_model.norm.weight"), "{text}");
    inventory.unused.push("model.language_model.norm.".into());
    assert!(!message(checkpoint.check(&inventory)).contains("left over"));
}

#[test]
fn integer_weights_are_refused_but_ignored_where_nothing_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let header = br#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend([0; 8]);
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let checkpoint = Checkpoint::open(dir.path(), NameMap::Verbatim).unwrap();
    let mut inventory = Inventory { required: vec![TensorSpec::new("a", [1])], ..Inventory::default() };
    let text = message(checkpoint.check(&inventory));
    assert!(text.contains("tensor a is of type I64, expected F32, F16 or BF16"), "{text}");
    inventory = Inventory { unused: vec!["a".into()], ..Inventory::default() };
    checkpoint.check(&inventory).unwrap();
}

#[test]
fn fused_rows_are_split() {
    let dir = tempfile::tempdir().unwrap();
    let values = ramp(12);
    let path = dir.path().join("model.safetensors");
    write_safetensors(&path, &[TensorOut::f32("blocks.0.attn.qkv.weight", [6, 2], &values)]).unwrap();
    let checkpoint = Checkpoint::open(dir.path(), NameMap::Dinov2).unwrap();
    for (at, part) in ["query", "key", "value"].iter().enumerate() {
        let view = checkpoint.get(&format!("encoder.layer.0.attention.attention.{part}.weight")).unwrap();
        assert_eq!(view.shape(), [2, 2]);
        assert_eq!(view.to_f32().unwrap(), values[4 * at..4 * at + 4]);
    }
    write_safetensors(&path, &[TensorOut::f32("blocks.0.attn.qkv.weight", [4, 3], &values)]).unwrap();
    assert!(message(Checkpoint::open(dir.path(), NameMap::Dinov2)).contains("three equal parts"));
}

/// Writes two shards and returns the index that belongs to them.
fn write_shards(dir: &Path) -> String {
    let (a, b) = (ramp(6), ramp(4));
    write_safetensors(&dir.join("s1.safetensors"), &[TensorOut::f32("lm_head.weight", [2, 3], &a)]).unwrap();
    write_safetensors(&dir.join("s2.safetensors"), &[TensorOut::f32("model.norm.weight", [4], &b)]).unwrap();
    let map = r#"{"lm_head.weight": "s1.safetensors", "model.norm.weight": "s2.safetensors"}"#;
    format!(r#"{{"metadata": {{"total_size": 40}}, "weight_map": {map}}}"#)
}

#[test]
fn shards_are_joined_and_their_index_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let index = write_shards(dir.path());
    let open = |index: &str| {
        fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        Checkpoint::open(dir.path(), NameMap::Llava)
    };
    let checkpoint = open(&index).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["lm_head.weight", "model.language_model.norm.weight"]);

    for (from, to, expected) in [
        ("s2.safetensors", "s3.safetensors", "shard s3.safetensors is missing"),
        ("s2.safetensors", "../s2.safetensors", "is not a plain relative path"),
        ("s2.safetensors", "/etc/passwd", "is not a plain relative path"),
        ("s2.safetensors", "", "is not a plain relative path"),
        ("model.norm", "model.other", "tensor model.other.weight is not in s2.safetensors"),
        ("weight_map", "weights", "it has no `weight_map`"),
        ("\"s2.safetensors\"", "7", "`weight_map` is not an object of file names"),
        ("{\"metadata\"", "[\"metadata\"", "not a JSON object"),
    ] {
        let text = message(open(&index.replace(from, to)));
        assert!(text.contains(expected), "`{text}` lacks `{expected}`");
        assert!(text.contains("model.safetensors.index.json"), "{text}");
    }
    assert!(message(open(r#"{"weight_map": {}}"#)).contains("`weight_map` is empty"));
}

#[test]
fn a_tensor_in_two_dialects_is_a_duplicate() {
    let dir = tempfile::tempdir().unwrap();
    let a = ramp(2);
    let tensors =
        [TensorOut::f32("model.norm.weight", [2], &a), TensorOut::f32("language_model.model.norm.weight", [2], &a)];
    write_safetensors(&dir.path().join("model.safetensors"), &tensors).unwrap();
    let text = message(Checkpoint::open(dir.path(), NameMap::Llava));
    assert!(text.contains("model.language_model.norm.weight is stored twice"), "{text}");
}

#[cfg(unix)]
#[test]
fn links_may_not_leave_the_directory_except_into_a_hub_cache() {
    let root = tempfile::tempdir().unwrap();
    let snapshot = root.path().join("repo/snapshots/abc");
    let blobs = root.path().join("repo/blobs");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    let index = write_shards(&snapshot);
    fs::write(snapshot.join("model.safetensors.index.json"), index).unwrap();
    let move_to = |target: &Path| {
        fs::rename(snapshot.join("s1.safetensors"), target).unwrap();
        std::os::unix::fs::symlink(target, snapshot.join("s1.safetensors")).unwrap();
    };
    move_to(&blobs.join("0123"));
    Checkpoint::open(&snapshot, NameMap::Llava).unwrap();
    fs::remove_file(snapshot.join("s1.safetensors")).unwrap();
    fs::rename(blobs.join("0123"), snapshot.join("s1.safetensors")).unwrap();
    move_to(&root.path().join("elsewhere"));
    let text = message(Checkpoint::open(&snapshot, NameMap::Llava));
    assert!(text.contains("shard s1.safetensors is a link that leaves the model directory"), "{text}");
}

#[test]
fn foreign_files_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let cases: [(&[u8], &str); 8] = [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "it is a web page"),
        (b"<html><head></head></html>", "it is a web page"),
        (b"PK\x03\x04aaaaaaaaaaaaaa", "the archive's directory, which stands at its end"),
        (b"\x80\x02cos\nsystem\n.", "it is a pickle that PyTorch did not write"),
        (b"GGUFaaaaaaaaaaaa", "it is a GGUF file"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "announce a header of 18446744073709551615 bytes"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let text = message(Checkpoint::open(dir.path(), NameMap::Llava));
        assert!(text.contains(expected) && text.contains("model.safetensors"), "`{text}` lacks `{expected}`");
    }
}

/// Parts of a model lie over each other: the later one is used.
#[test]
fn parts_from_several_places_are_one_model() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, head, tower) = (dir.path().join("m"), dir.path().join("head.bin"), dir.path().join("tower"));
    write_sample(&whole);
    let zeros = [0.0; 6];
    write_safetensors(&head, &[TensorOut::f32("lm_head.weight", [2, 3], &zeros)]).unwrap();
    write_safetensors(&tower, &[TensorOut::f32("vision_model.post_layernorm.bias", [6], &zeros)]).unwrap();
    let mut model = Checkpoint::open(&whole, NameMap::Llava).unwrap();
    model.overlay(Checkpoint::open(&head, NameMap::Llava).unwrap());
    model.overlay(Checkpoint::open_under("model.vision_tower.", &tower, NameMap::VisionTower).unwrap());
    assert_eq!(model.get("lm_head.weight").unwrap().to_f32().unwrap(), zeros);
    assert_eq!(model.get("model.language_model.norm.weight").unwrap().to_f32().unwrap(), ramp(4));
    assert_eq!(model.shape("model.vision_tower.post_layernorm.bias"), Some(&[6][..]));
    assert_eq!(model.names().count(), 4);
}

#[test]
fn a_header_may_have_the_length_that_another_format_begins_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    // As little-endian numbers: the mark of a pickle, and what a web page begins with.
    for mark in [*b"\x80\x02", *b"<a"] {
        let length = u64::from(u16::from_le_bytes(mark));
        let file = [&length.to_le_bytes()[..], format!("{:<1$}", "{}", length as usize).as_bytes()].concat();
        fs::write(&path, file).unwrap();
        assert_eq!(TensorFile::open(&path).unwrap().names().count(), 0);
    }
}

#[test]
fn directories_without_weights() {
    let dir = tempfile::tempdir().unwrap();
    assert!(message(Checkpoint::open(&dir.path().join("no"), NameMap::Llava)).contains("cannot open model directory"));
    assert!(message(Checkpoint::open(dir.path(), NameMap::Llava)).contains("neither model.safetensors nor"));
    // Research releases are one file of any name; of two, either could be meant.
    let (a, b) = (dir.path().join("a.safetensors"), dir.path().join("b.pth"));
    write_sample(&a);
    Checkpoint::open(dir.path(), NameMap::Llava).unwrap().check(&sample_inventory()).unwrap();
    fs::write(&b, b"x").unwrap();
    assert!(message(Checkpoint::open(dir.path(), NameMap::Llava)).contains("several other weight files"));
    Checkpoint::open(&a, NameMap::Llava).unwrap().check(&sample_inventory()).unwrap();
    assert!(message(Checkpoint::open(&b, NameMap::Llava)).contains("b.pth is truncated"));
    fs::rename(&b, dir.path().join("pytorch_model.bin")).unwrap();
    assert!(message(Checkpoint::open(dir.path(), NameMap::Llava)).contains("pytorch_model.bin is truncated"));
}

/// Every possible truncation, and every single flipped bit of the header: an error, or a file in which the check against
/// the expected tensors fails, or (metadata, spaces) exactly the same tensors. Never a panic.
#[test]
fn no_truncation_or_header_damage_loads_silently() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_sample(&path);
    let good = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    // A damaged file never replaces one that is mapped.
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Checkpoint::open(dir.path(), NameMap::Llava)
    };
    for end in 0..good.len() {
        let text = message(open(&good[..end]));
        assert!(text.contains("model.safetensors"), "{text}");
        if end > header {
            assert!(text.contains("is truncated: tensor "), "{text}");
        }
    }
    let tail = [&good[..], &[0]].concat();
    assert!(message(open(&tail)).contains("its tensors end at byte 44 of the data, the file holds 45"));

    let values = |checkpoint: &Checkpoint| -> Vec<Vec<f32>> {
        let names: Vec<&str> = checkpoint.names().collect();
        names.iter().map(|name| checkpoint.get(name).unwrap().to_f32().unwrap()).collect()
    };
    let reference = values(&open(&good).unwrap());
    let mut unnoticed = 0;
    for bit in 0..header * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(checkpoint) = open(&bytes) else { continue };
        if checkpoint.check(&sample_inventory()).is_ok() {
            assert_eq!(values(&checkpoint), reference, "bit {bit}");
            unnoticed += 1;
        }
    }
    // Only the `__metadata__` text can change without consequence.
    assert!(unnoticed < 8 * r#""__metadata__":{"format":"pt"},"#.len(), "{unnoticed}");
}

/// Headers that claim impossible sizes.
#[test]
fn absurd_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (
            r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}"#,
            "tensor a: shape [4] of F32 does not fit offsets 0..8",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            "tensor a: shape [2] of F32 does not fit offsets 8..0",
        ),
        (r#"{"a":{"dtype":"F32","shape":[18446744073709551615, 2],"data_offsets":[0,8]}}"#, "does not fit"),
        (
            r#"{"a":{"dtype":"F32","shape":[2305843009213693951],"data_offsets":[0,9223372036854775804]}}"#,
            "does not fit",
        ),
        (r#"{"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}}"#, "tensor a: unknown variant"),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            "tensor b begins at byte 4 of the data instead of 8",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            "tensor a begins at byte 4 of the data instead of 0",
        ),
        (r#"{"a\u001b[31m":7}"#, "tensor a\\u{1b}[31m: "),
        ("[]", "not a JSON object"),
        ("\u{7f}", "not a JSON object"),
    ];
    for (header, expected) in cases {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let text = message(Checkpoint::open(dir.path(), NameMap::Llava));
        assert!(text.contains(expected), "`{text}` lacks `{expected}`");
    }
}

#[test]
fn fingerprints_tell_checkpoints_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let print = |values: &[f32]| {
        write_safetensors(&path, &[TensorOut::f32("a", [values.len()], values)]).unwrap();
        Checkpoint::open(dir.path(), NameMap::Llava).unwrap().fingerprint()
    };
    let first = print(&ramp(100_000));
    assert_eq!((first.len(), &first), (64, &print(&ramp(100_000))));
    let mut changed = ramp(100_000);
    changed[0] += 1.0;
    assert_ne!(first, print(&changed));
}
