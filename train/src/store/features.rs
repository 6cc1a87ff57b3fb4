//! What frozen networks made of pictures, on disk for later runs: a file a picture, each whole or not there.
//!
//! `ROOT/FAMILY/HH/HASH.safetensors`: the family is everything but the picture that numbers depend on, down to the kernels that
//! computed them; HASH is the picture's, HH its first two digits. A file that is damaged, or of other tensors, counts as absent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};
use sha2::{Digest, Sha256};
use viral_compiler::types::{DType, TensorType};

use super::file::{Survives, replace_file};
use crate::error::{Error, Result, escape};

/// Metadata of a file: the hash of its tensors' bytes, one after the other.
const HASH: &str = "sha256";

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) ty: TensorType,
}

/// A folder with the features of pictures.
#[derive(Debug)]
pub(crate) struct FeatureFolder {
    root: PathBuf,
    /// Bytes that may still be written; none once writing has failed.
    left: u64,
}

impl FeatureFolder {
    /// The folder at a path, which the first file makes. Files are written until there are `limit` bytes of them.
    ///
    /// # Errors
    /// What is there cannot be read.
    pub(crate) fn open(root: &Path, limit: u64) -> Result<Self> {
        let used = match bytes_below(root) {
            Ok(used) => used,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(Error::io("read the folder for features", root, &error)),
        };
        Ok(Self { root: root.to_path_buf(), left: limit.saturating_sub(used) })
    }

    /// Whether a file would be kept that is not there yet.
    pub(crate) fn wants(&self, family: &str, picture: &[u8]) -> bool {
        self.left > 0 && !self.path(family, picture).exists()
    }

    /// The bytes of the tensors of a picture, if they are there.
    pub(crate) fn load(&self, family: &str, picture: &[u8], values: &[Value]) -> Option<Vec<Vec<u8>>> {
        let path = self.path(family, picture);
        let content = fs::read(&path).ok()?;
        let parts = parts(&content, values);
        if parts.is_none() {
            log::warn!(
                "{}: damaged, so its picture's features are computed again",
                escape(&path.display().to_string())
            );
            // Else it would be found, and passed over, by every later run.
            let _ = fs::remove_file(&path);
        }
        parts
    }

    /// Keeps the tensors of a picture, if there is room. A disk that refuses is no reason to end a run: it is told once.
    pub(crate) fn save(&mut self, family: &str, picture: &[u8], values: &[Value], parts: &[Vec<u8>]) {
        let content = match content(values, parts) {
            Ok(content) => content,
            Err(why) => return self.stop(&why),
        };
        let Some(left) = self.left.checked_sub(content.len() as u64) else {
            return self.stop("it has reached train.feature_dir_limit");
        };
        // What is lost with the power is found out by its hash.
        match replace_file(&self.path(family, picture), &content, Survives::Programs) {
            Ok(()) => self.left = left,
            Err(error) => self.stop(&error.to_string()),
        }
    }

    fn stop(&mut self, why: &str) {
        let root = escape(&self.root.display().to_string());
        log::warn!("{root}: no more features are kept there, and later runs compute them again: {why}");
        self.left = 0;
    }

    fn path(&self, family: &str, picture: &[u8]) -> PathBuf {
        let hash = hex(picture);
        self.root.join(family).join(&hash[..hash.len().min(2)]).join(format!("{hash}.safetensors"))
    }
}

/// Bytes as digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file's content.
fn content(values: &[Value], parts: &[Vec<u8>]) -> std::result::Result<Vec<u8>, Cow<'static, str>> {
    let views = values.iter().zip(parts).map(|(value, bytes)| {
        let dtype = stored(value.ty.dtype).ok_or("features are no floats")?;
        let view = TensorView::new(dtype, value.ty.shape.clone(), bytes).map_err(|error| error.to_string())?;
        Ok((value.name.as_str(), view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, Cow<'static, str>>>()?;
    let metadata = HashMap::from([(HASH.to_owned(), hash_of(parts))]);
    serialize(views, Some(metadata)).map_err(|error| error.to_string().into())
}

/// The tensors in a file, if it holds these and is whole.
fn parts(content: &[u8], values: &[Value]) -> Option<Vec<Vec<u8>>> {
    let (_, header) = SafeTensors::read_metadata(content).ok()?;
    let tensors = SafeTensors::deserialize(content).ok()?;
    let part = |value: &Value| {
        let view = tensors.tensor(&value.name).ok()?;
        let is_it = Some(view.dtype()) == stored(value.ty.dtype) && view.shape() == value.ty.shape;
        is_it.then(|| view.data().to_vec())
    };
    let parts = values.iter().map(part).collect::<Option<Vec<_>>>()?;
    let hash = header.metadata().as_ref()?.get(HASH)?;
    (*hash == hash_of(&parts)).then_some(parts)
}

fn hash_of(parts: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hex(&hash.finalize())
}

fn stored(dtype: DType) -> Option<Dtype> {
    match dtype {
        DType::F32 => Some(Dtype::F32),
        DType::BF16 => Some(Dtype::BF16),
        DType::F16 => Some(Dtype::F16),
        _ => None,
    }
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(about) if about.is_dir() => bytes += bytes_below(&entry.path())?,
            Ok(about) => bytes += about.len(),
            // Another run has just given it its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: &str = "0123";
    const PICTURE: [u8; 3] = [0xab, 1, 2];

    fn values() -> Vec<Value> {
        let value = |name: &str, ty| Value { name: name.to_owned(), ty };
        vec![value("features", TensorType::f32([2, 3])), value("targets", TensorType::new(DType::BF16, [2, 2]))]
    }

    fn parts_of(start: u8) -> Vec<Vec<u8>> {
        vec![(start..start + 24).collect(), (start..start + 8).collect()]
    }

    #[test]
    fn what_is_kept_is_found_by_whoever_opens_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = FeatureFolder::open(&root.path().join("new"), 1 << 20).unwrap();
        assert!(folder.wants(FAMILY, &PICTURE) && folder.load(FAMILY, &PICTURE, &values()).is_none());
        folder.save(FAMILY, &PICTURE, &values(), &parts_of(1));
        assert!(!folder.wants(FAMILY, &PICTURE) && folder.wants("4567", &PICTURE) && folder.wants(FAMILY, &[0xab, 1]));
        let other = FeatureFolder::open(&root.path().join("new"), 1 << 20).unwrap();
        assert_eq!(other.load(FAMILY, &PICTURE, &values()), Some(parts_of(1)));
        assert_eq!(other.left, folder.left);
        assert!(root.path().join("new/0123/ab/ab0102.safetensors").is_file());
    }

    #[test]
    fn a_file_that_is_not_whole_or_of_other_tensors_counts_as_absent() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = FeatureFolder::open(root.path(), 1 << 20).unwrap();
        let path = folder.path(FAMILY, &PICTURE);
        folder.save(FAMILY, &PICTURE, &values(), &parts_of(1));
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let other = content(&values()[..1], &parts_of(1)[..1]).unwrap();
        let mut wider = values();
        wider[0].ty = TensorType::f32([3, 2]);
        let wider = content(&wider, &parts_of(1)).unwrap();
        for (what, bytes) in
            [("cut", whole[..whole.len() - 1].to_vec()), ("flipped", flipped), ("fewer", other), ("wider", wider)]
        {
            fs::write(&path, bytes).unwrap();
            assert_eq!(folder.load(FAMILY, &PICTURE, &values()), None, "{what}");
            assert!(folder.wants(FAMILY, &PICTURE), "{what}");
        }
        folder.save(FAMILY, &PICTURE, &values(), &parts_of(2));
        assert_eq!(folder.load(FAMILY, &PICTURE, &values()), Some(parts_of(2)));
    }

    #[test]
    fn a_folder_does_not_outgrow_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let bytes = content(&values(), &parts_of(1)).unwrap().len() as u64;
        let mut folder = FeatureFolder::open(root.path(), 2 * bytes + 1).unwrap();
        for picture in 0..4 {
            folder.save(FAMILY, &[picture], &values(), &parts_of(1));
        }
        assert_eq!(bytes_below(root.path()).unwrap(), 2 * bytes);
        assert!(!folder.wants(FAMILY, &[3]) && folder.load(FAMILY, &[1], &values()).is_some());
        assert_eq!(FeatureFolder::open(root.path(), 2 * bytes + 1).unwrap().left, 1);
    }

    #[test]
    fn a_disk_that_refuses_ends_keeping_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = FeatureFolder::open(root.path(), 1 << 20).unwrap();
        // A file is where the family's folder would be.
        fs::write(root.path().join(FAMILY), "").unwrap();
        folder.save(FAMILY, &PICTURE, &values(), &parts_of(1));
        assert!(!folder.wants(FAMILY, &PICTURE) && folder.left == 0);
        let error = FeatureFolder::open(&root.path().join(FAMILY), 1).unwrap_err();
        assert!(error.place.ends_with(FAMILY), "{error}");
    }
}
