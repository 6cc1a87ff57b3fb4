//! Dense host tensors in f64, the interpreter's currency.

use crate::storage;
use crate::types::{DType, TensorType, row_major_place};

/// A dense row-major tensor whose elements are held as `f64`, whatever the element type.
///
/// Integers up to 2^53 and truth values (0 and 1) are exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Element type and shape.
    pub ty: TensorType,
    /// Elements in row-major order.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor from its parts.
    ///
    /// # Panics
    /// If the number of elements does not match the shape.
    pub fn new(ty: TensorType, data: Vec<f64>) -> Self {
        assert_eq!(ty.len(), data.len(), "{ty} needs {} elements", ty.len());
        Self { ty, data }
    }

    /// An `f32` tensor.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        Self::new(TensorType::f32(shape), data)
    }

    /// A tensor whose element at each multi-index is `element(index)`.
    pub fn from_fn(ty: &TensorType, mut element: impl FnMut(&[usize]) -> f64) -> Self {
        let mut data = Vec::with_capacity(ty.len());
        for_each_index(&ty.shape, |index| data.push(element(index)));
        Self { ty: ty.clone(), data }
    }

    /// Applies `f` to corresponding elements; all tensors have one shape.
    pub fn map(args: &[&Tensor], ty: &TensorType, f: impl Fn(&[f64]) -> f64) -> Self {
        let mut row = vec![0.0; args.len()];
        let data = (0..ty.len())
            .map(|i| {
                for (slot, arg) in row.iter_mut().zip(args) {
                    *slot = arg.data[i];
                }
                f(&row)
            })
            .collect();
        Self { ty: ty.clone(), data }
    }

    /// Element at a multi-index.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[row_major_place(index, &self.ty.shape)]
    }

    /// Little-endian bytes in the element type, as the device stores them.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.ty.dtype.is_storage() {
            let values: Vec<f32> = self.data.iter().map(|&x| x as f32).collect();
            return storage::encode(self.ty.dtype, &values);
        }
        self.data
            .iter()
            .flat_map(|&x| match self.ty.dtype {
                DType::I32 => (x as i32).to_le_bytes(),
                DType::U32 | DType::Bool => (x as u32).to_le_bytes(),
                _ => (x as f32).to_le_bytes(),
            })
            .collect()
    }

    /// The inverse of [`Tensor::to_bytes`].
    pub fn from_bytes(ty: &TensorType, bytes: &[u8]) -> Self {
        if ty.dtype.is_storage() {
            let values = storage::decode(ty.dtype, ty.len(), bytes);
            return Self::new(ty.clone(), values.into_iter().map(f64::from).collect());
        }
        let element = |b: &[u8]| {
            let word = [b[0], b[1], b[2], b[3]];
            match ty.dtype {
                DType::I32 => i32::from_le_bytes(word) as f64,
                DType::U32 | DType::Bool => u32::from_le_bytes(word) as f64,
                _ => f32::from_le_bytes(word) as f64,
            }
        };
        Self::new(ty.clone(), bytes.chunks_exact(4).map(element).collect())
    }
}

/// Calls `visit` with every multi-index of `shape`, in row-major order.
pub fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        visit(&index);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}
