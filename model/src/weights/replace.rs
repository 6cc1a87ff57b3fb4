//! A checkpoint's files with the values of some tensors replaced.

use half::{bf16, f16};

use super::{Checkpoint, CheckpointError, StoredDtype};

/// A weight file as it will be: its pieces follow each other.
#[derive(Debug)]
pub struct WeightFile<'a> {
    /// Name in its directory.
    pub name: String,
    /// Header, data that stays, and tensors that do not.
    pub pieces: Vec<WeightPiece<'a>>,
}

/// A stretch of a weight file.
#[derive(Debug)]
pub enum WeightPiece<'a> {
    /// Bytes as they are.
    Stored(&'a [u8]),
    /// New values of a tensor.
    Replaced {
        /// Canonical name.
        name: &'a str,
        /// Element type, as stored before.
        dtype: StoredDtype,
        /// Elements.
        len: usize,
    },
}

impl WeightPiece<'_> {
    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            WeightPiece::Stored(bytes) => bytes.len(),
            WeightPiece::Replaced { dtype, len, .. } => dtype.bytes() * len,
        }
    }
}

impl Checkpoint {
    /// The weight files in which the tensors that `is_replaced` chooses by canonical name get new values. Names of files
    /// and tensors, shapes and element types stay, so whatever reads the checkpoint reads the new one.
    ///
    /// Only a checkpoint that [`Self::is_replaceable`] is a model again.
    ///
    /// # Errors
    /// A chosen tensor's type is not f32, f16 or bf16.
    pub fn with_replaced(&self, is_replaced: impl Fn(&str) -> bool) -> Result<Vec<WeightFile<'_>>, CheckpointError> {
        let mut files = Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            let chosen = self.tensors.iter().filter(|(name, at)| at.file == index && is_replaced(name));
            let mut tensors: Vec<_> = chosen.filter_map(|(name, at)| Some((name, at.place.stored()?))).collect();
            tensors.sort_by_key(|(_, range)| range.start);
            let data = file.data();
            let mut pieces = vec![WeightPiece::Stored(file.header())];
            let mut position = 0;
            for (name, range) in tensors {
                pieces.push(WeightPiece::Stored(data.get(position..range.start).unwrap_or_default()));
                let dtype = self.get(name)?.dtype();
                pieces.push(WeightPiece::Replaced { name, dtype, len: range.len() / dtype.bytes() });
                position = range.end;
            }
            pieces.push(WeightPiece::Stored(data.get(position..).unwrap_or_default()));
            let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push(WeightFile { name, pieces });
        }
        Ok(files)
    }
}

impl StoredDtype {
    /// The values as they are stored, each rounded to the nearest that the type has. A finite value beyond the type's
    /// range becomes its largest.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            StoredDtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            StoredDtype::F16 => {
                let most = f16::MAX.to_f32();
                let clamp = |x: f32| if x.is_finite() { x.clamp(-most, most) } else { x };
                values.iter().flat_map(|&x| f16::from_f32(clamp(x)).to_le_bytes()).collect()
            }
            StoredDtype::Bf16 => {
                let most = bf16::MAX.to_f32();
                let clamp = |x: f32| if x.is_finite() { x.clamp(-most, most) } else { x };
                values.iter().flat_map(|&x| bf16::from_f32(clamp(x)).to_le_bytes()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_nearest_and_stay_finite() {
        let values = [1.0, -0.333_333_34, 1e6, f32::MAX, f32::NEG_INFINITY];
        let f16s = [0x3c00_u16, 0xb555, 0x7bff, 0x7bff, 0xfc00];
        let bf16s = [0x3f80_u16, 0xbeab, 0x4974, 0x7f7f, 0xff80];
        let bytes = |words: [u16; 5]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(StoredDtype::F16.encode(&values), bytes(f16s));
        assert_eq!(StoredDtype::Bf16.encode(&values), bytes(bf16s));
        assert_eq!(StoredDtype::F32.encode(&values[..1]), [0, 0, 128, 63]);
    }
}
