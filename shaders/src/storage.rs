//! How kernels read reals that memory holds in fewer than 32 bits.

/// How an array holds reals; the elements of a tensor lie one after the other, the first in the lowest bits of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// 32-bit floats.
    #[default]
    F32,
    /// The upper halves of 32-bit floats.
    BF16,
    /// 16-bit floats of IEEE 754.
    F16,
    /// Signed bytes, times a scale for each 64 of them, which are floats behind all bytes.
    Q8,
    /// Codes of four bits for sixteen fixed numbers, the first of two in the upper half of its byte, times a scale for
    /// each 64 of them, which are floats behind all codes.
    NF4,
    /// 8-bit floats with a sign, 4 bits of exponent and 3 of mantissa, up to 1 in magnitude.
    F8S,
    /// 8-bit floats with 5 bits of exponent and 3 of mantissa, from 0 to 1.
    F8U,
}

/// The functions that the expressions of [`Storage::element`] and [`Storage::four`] call; text that uses them contains
/// [`PREFIX`].
pub const FUNCTIONS: &str = include_str!("../lib/storage.wgsl");

/// What the names of all [`FUNCTIONS`] begin with.
pub const PREFIX: &str = "stored_";

impl Storage {
    /// What weights are stored as.
    pub const WEIGHTS: [Storage; 5] = [Storage::F32, Storage::BF16, Storage::F16, Storage::Q8, Storage::NF4];

    /// Short name.
    pub fn name(self) -> &'static str {
        match self {
            Storage::F32 => "f32",
            Storage::BF16 => "bf16",
            Storage::F16 => "f16",
            Storage::Q8 => "q8",
            Storage::NF4 => "nf4",
            Storage::F8S => "f8s",
            Storage::F8U => "f8u",
        }
    }

    /// Whether elements are multiplied by the scale of their block.
    pub fn has_scales(self) -> bool {
        matches!(self, Storage::Q8 | Storage::NF4)
    }

    /// Element type of the array; `vec4` where it is read four elements at a time.
    pub fn word(self, vec4: bool) -> &'static str {
        match (self, vec4) {
            (Storage::F32, true) => "vec4<f32>",
            (Storage::F32, false) => "f32",
            (Storage::BF16 | Storage::F16, true) => "vec2<u32>",
            _ => "u32",
        }
    }

    /// Expression of the element at the position `at` of `array`, which was declared with [`Storage::word`]`(vec4)`.
    /// `scales` is the word at which the scales begin, where there are any.
    pub fn element(self, array: &str, vec4: bool, at: &str, scales: &str) -> String {
        let scale = format!("bitcast<f32>({array}[{scales} + (({at}) >> 6u)])");
        let name = self.name();
        match (self, vec4) {
            (Storage::F32, true) => format!("{array}[({at}) >> 2u][({at}) & 3u]"),
            (Storage::F32, false) => format!("{array}[{at}]"),
            (Storage::BF16 | Storage::F16, true) => {
                format!("stored_{name}({array}[({at}) >> 2u][(({at}) >> 1u) & 1u], {at})")
            }
            (Storage::BF16 | Storage::F16, false) => format!("stored_{name}({array}[({at}) >> 1u], {at})"),
            (Storage::Q8, _) => format!("stored_q8({array}[({at}) >> 2u], {at}, {scale})"),
            (Storage::F8S | Storage::F8U, _) => format!("stored_{name}_four({array}[({at}) >> 2u])[({at}) & 3u]"),
            (Storage::NF4, _) => format!("stored_nf4({array}[({at}) >> 3u], {at}, {scale})"),
        }
    }

    /// Expression of the four elements of the cell `cell` of `array`, which was declared with [`Storage::word`]`(true)`.
    pub fn four(self, array: &str, cell: &str, scales: &str) -> String {
        let scale = format!("bitcast<f32>({array}[{scales} + (({cell}) >> 4u)])");
        match self {
            Storage::F32 => format!("{array}[{cell}]"),
            Storage::BF16 => format!("stored_bf16_four({array}[{cell}])"),
            Storage::F16 => format!("stored_f16_four({array}[{cell}])"),
            Storage::Q8 => format!("stored_q8_four({array}[{cell}], {scale})"),
            Storage::F8S | Storage::F8U => format!("stored_{}_four({array}[{cell}])", self.name()),
            Storage::NF4 => format!("stored_nf4_four({array}[({cell}) >> 1u], {cell}, {scale})"),
        }
    }

    /// [`FUNCTIONS`] if `text` calls any of them.
    pub fn functions(text: &str) -> &'static str {
        if text.contains(PREFIX) { FUNCTIONS } else { "" }
    }
}
