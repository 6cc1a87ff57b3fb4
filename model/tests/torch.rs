//! PyTorch's own files against PyTorch. `fixtures/make_torch.py` wrote them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use viral_model::weights::{CheckpointError, TensorFile};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch").join(name)
}

/// Type, shape and elements of every tensor.
fn expected() -> BTreeMap<String, (String, Vec<usize>, Vec<f32>)> {
    let root: Value = serde_json::from_slice(&fs::read(fixture("expected.json")).unwrap()).unwrap();
    let tensor = |value: &Value| {
        let dtype = match value["dtype"].as_str().unwrap() {
            "float32" => "F32",
            "float16" => "F16",
            "bfloat16" => "BF16",
            other => panic!("{other}"),
        };
        let shape = value["shape"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect();
        let values = value["values"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        (dtype.to_string(), shape, values)
    };
    root.as_object().unwrap().iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
}

#[track_caller]
fn assert_equal(file: &TensorFile, name: &str, (dtype, shape, values): &(String, Vec<usize>, Vec<f32>)) {
    let view = file.get(name).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((view.dtype().name(), view.shape()), (dtype.as_str(), shape.as_slice()), "{name}");
    assert_eq!(view.to_f32().unwrap(), *values, "{name}");
}

#[test]
fn every_view_of_every_form_reads_as_in_pytorch() {
    let expected = expected();
    for form in ["archive.bin", "protocol4.pt", "legacy.pth"] {
        let file = TensorFile::open(&fixture(form)).unwrap_or_else(|error| panic!("{error}"));
        for (name, tensor) in &expected {
            assert_equal(&file, name, tensor);
        }
        let others: Vec<&str> = file.names().filter(|name| !expected.contains_key(*name)).collect();
        assert_eq!(others, ["counter", "mask"], "{form}");
        let message = file.get("mask").unwrap_err().to_string();
        assert!(message.contains("tensor mask is of type BOOL, expected F32, F16 or BF16"), "{message}");
    }
}

#[test]
fn a_training_state_gives_its_tensors() {
    let (file, expected) = (TensorFile::open(&fixture("training.pth.tar")).unwrap(), expected());
    assert_eq!(file.names().collect::<Vec<_>>(), ["half", "slice"]);
    for name in ["half", "slice"] {
        assert_equal(&file, name, &expected[name]);
    }
}

#[test]
fn a_whole_module_is_refused_by_name() {
    let error = TensorFile::open(&fixture("module.bin")).map(drop).unwrap_err();
    assert!(matches!(error, CheckpointError::Pickle { .. }));
    let message = error.to_string();
    assert!(message.contains("module.bin") && message.contains("`torch.nn.modules.module.Module`"), "{message}");
}

/// Every file cut short is an error; with a byte changed it is an error, or has tensors of its own length.
#[test]
fn damaged_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.bin");
    for form in ["archive.bin", "legacy.pth"] {
        let bytes = fs::read(fixture(form)).unwrap();
        for end in (0..bytes.len()).step_by(23).chain([bytes.len() - 1]) {
            fs::write(&path, &bytes[..end]).unwrap();
            let message = TensorFile::open(&path).map(drop).expect_err("a cut file opens").to_string();
            assert!(message.contains("damaged.bin"), "{form} cut at {end}: {message}");
        }
        for at in (0..bytes.len()).step_by(5) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).unwrap();
            let Ok(file) = TensorFile::open(&path) else { continue };
            for name in file.names() {
                let Ok(view) = file.get(name) else { continue };
                assert_eq!(view.len(), view.shape().iter().product::<usize>(), "{form} changed at {at}: {name}");
            }
        }
    }
}
