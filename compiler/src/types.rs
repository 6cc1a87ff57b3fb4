//! Element types and shapes.

use std::fmt;
use std::str::FromStr;

use viral_shaders::Storage;

/// Element type of a value.
///
/// Kernels compute with the first four. The others are *storage types*: ways to keep reals in less memory
/// ([`crate::storage`]), which [`widen`](crate::ops::widen::Widen) turns into `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 32-bit signed integer.
    I32,
    /// 32-bit unsigned integer.
    U32,
    /// Truth value; stored as a `u32` that is 0 or 1.
    Bool,
    /// The upper half of a 32-bit float.
    BF16,
    /// 16-bit float of IEEE 754.
    F16,
    /// Blocks of 64 signed bytes and a scale.
    Q8,
    /// Blocks of 64 codes of four bits, for quantiles of a normal distribution, and a scale.
    NF4,
    /// 8-bit float with a sign, for magnitudes up to 1.
    F8S,
    /// 8-bit float without a sign, for numbers from 0 to 1.
    F8U,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 10] = [
        DType::F32,
        DType::I32,
        DType::U32,
        DType::Bool,
        DType::BF16,
        DType::F16,
        DType::Q8,
        DType::NF4,
        DType::F8S,
        DType::F8U,
    ];

    /// Elements that share a scale in the types that have one.
    pub const BLOCK: usize = 64;

    /// Name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::Bool => "bool",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::Q8 => "q8",
            DType::NF4 => "nf4",
            DType::F8S => "f8s",
            DType::F8U => "f8u",
        }
    }

    /// Whether this is a storage type.
    pub fn is_storage(self) -> bool {
        self.bits() < 32
    }

    /// How kernels read reals of this type; `None` for integers and truth values.
    pub fn storage(self) -> Option<Storage> {
        match self {
            DType::F32 => Some(Storage::F32),
            DType::I32 | DType::U32 | DType::Bool => None,
            DType::BF16 => Some(Storage::BF16),
            DType::F16 => Some(Storage::F16),
            DType::Q8 => Some(Storage::Q8),
            DType::NF4 => Some(Storage::NF4),
            DType::F8S => Some(Storage::F8S),
            DType::F8U => Some(Storage::F8U),
        }
    }

    /// Whether elements share a scale with their block.
    pub fn has_scales(self) -> bool {
        self.storage().is_some_and(Storage::has_scales)
    }

    /// Bits of one stored element, scales aside.
    pub fn bits(self) -> u64 {
        match self {
            DType::F32 | DType::I32 | DType::U32 | DType::Bool => 32,
            DType::BF16 | DType::F16 => 16,
            DType::Q8 | DType::F8S | DType::F8U => 8,
            DType::NF4 => 4,
        }
    }

    /// Whether a tensor of this shape can be stored so: blocks do not reach across rows.
    pub fn can_store(self, shape: &[usize]) -> bool {
        !self.has_scales() || shape.last().is_some_and(|columns| columns.is_multiple_of(Self::BLOCK))
    }

    /// Bytes of `len` stored elements before the scales, in whole words.
    pub fn element_bytes(self, len: usize) -> u64 {
        (len as u64 * self.bits()).div_ceil(32) * 4
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|d| d.name() == s).ok_or_else(|| format!("unknown element type `{s}`"))
    }
}

/// Element type and shape of a value. Shapes are row-major; a scalar has the empty shape.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extent of each axis.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self { dtype, shape: shape.into() }
    }

    /// `f32` with this shape.
    pub fn f32(shape: impl Into<Vec<usize>>) -> Self {
        Self::new(DType::F32, shape)
    }

    /// `u32` with this shape.
    pub fn u32(shape: impl Into<Vec<usize>>) -> Self {
        Self::new(DType::U32, shape)
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The word at which the scales begin, where the type has any.
    pub fn scales(&self) -> u32 {
        if self.dtype.has_scales() { (self.dtype.element_bytes(self.len()) / 4) as u32 } else { 0 }
    }

    /// Bytes when stored densely: the elements, then the scales of their blocks.
    pub fn bytes(&self) -> u64 {
        let scales = if self.dtype.has_scales() { self.len().div_ceil(DType::BLOCK) as u64 } else { 0 };
        self.dtype.element_bytes(self.len()) + 4 * scales
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (axis, extent) in self.shape.iter().enumerate() {
            if axis > 0 {
                f.write_str(",")?;
            }
            write!(f, "{extent}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TensorType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (dtype, rest) = s.split_once('[').ok_or_else(|| format!("`{s}` is not a tensor type"))?;
        let inner = rest.strip_suffix(']').ok_or_else(|| format!("`{s}` lacks a closing bracket"))?;
        let shape = inner
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.trim().parse().map_err(|_| format!("`{part}` is not an extent")))
            .collect::<Result<Vec<usize>, _>>()?;
        Ok(Self { dtype: dtype.parse()?, shape })
    }
}

/// Position of a multi-index among the elements of a dense row-major tensor.
pub fn row_major_place(index: &[usize], shape: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |place, (at, extent)| place * extent + at)
}

/// Distance in elements between neighbours along each axis of a dense row-major tensor.
pub fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
