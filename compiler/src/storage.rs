//! How reals are kept in fewer than 32 bits.
//!
//! | type | an element | its value | bytes of 64 elements |
//! | --- | --- | --- | --- |
//! | `bf16` | the upper half of a 32-bit float | itself | 128 |
//! | `f16` | 16-bit float of IEEE 754 | itself | 128 |
//! | `q8` | a signed byte, -127 to 127 | byte · scale of the block | 68 |
//! | `nf4` | a code of four bits | [`NF4`]\[code\] · scale of the block | 36 |
//! | `f8s` | sign, 4 bits of exponent, 3 of mantissa | itself, up to 1 in magnitude; multiples of 2^-17 below 2^-14 | 64 |
//! | `f8u` | 5 bits of exponent, 3 of mantissa | itself, from 0 to 1; multiples of 2^-33 below 2^-30 | 64 |
//!
//! A tensor is stored as its elements in row-major order, the first in the lowest bits, and then the scales of its blocks
//! of 64 as 32-bit floats. Of two `nf4` codes that share a byte the first has the upper half, and a block's scale is its
//! largest magnitude: bytes and scales are those of bitsandbytes (T. Dettmers et al., QLoRA, 2023, appendix E).

use half::{bf16, f16};

use crate::types::DType;

/// Values of the sixteen codes: quantiles of a normal distribution, between -1 and 1, with an exact zero.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// What lies halfway between neighbouring values of [`NF4`], rounded as bitsandbytes does: a number above the `i`-th has a
/// code above `i`.
const NF4_BOUNDS: [f32; 15] = [
    -0.848_096_4,
    -0.610_632_9,
    -0.459_995_27,
    -0.339_679_43,
    -0.234_607_41,
    -0.137_911_73,
    -0.045_525_018,
    0.039_790_15,
    0.120_255_25,
    0.203_521_25,
    0.292_013_77,
    0.389_312_54,
    0.501_663_4,
    0.642_786_9,
    0.861_478_4,
];

/// Largest finite 16-bit float.
const F16_MAX: f32 = 65504.0;

/// `values` as `dtype` stores them: the nearest number that it has, and for `f16` the largest one where `values` has a
/// finite number beyond. Storage types with scales need whole blocks; a last incomplete one counts as filled up with zeros.
pub fn encode(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = match dtype {
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&x| f16::from_f32(in_range(x)).to_le_bytes()).collect(),
        DType::F8S => values.iter().map(|&x| f8_code(x.abs(), F8S_BIAS) | u8::from(x < 0.0) << 7).collect(),
        DType::F8U => values.iter().map(|&x| f8_code(x, F8U_BIAS)).collect(),
        DType::Q8 => blocks(values).flat_map(|block| block.map(|(x, scale)| q8_code(x, scale) as u8)).collect(),
        DType::NF4 => {
            let codes: Vec<u8> = blocks(values).flat_map(|block| block.map(|(x, max)| nf4_code(x, max))).collect();
            codes.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect()
        }
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    if dtype.has_scales() {
        let scale = |block: &[f32]| if dtype == DType::Q8 { q8_scale(block) } else { largest(block) };
        bytes.extend(values.chunks(DType::BLOCK).flat_map(|block| scale(block).to_le_bytes()));
    }
    bytes
}

/// The `len` values that `bytes` stores as `dtype`; missing bytes count as zeros.
pub fn decode(dtype: DType, len: usize, bytes: &[u8]) -> Vec<f32> {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let half = |i: usize| [byte(2 * i), byte(2 * i + 1)];
    let word = |at: usize| f32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    let scales = dtype.element_bytes(len) as usize;
    let scale = |i: usize| word(scales + 4 * (i / DType::BLOCK));
    let value = |i: usize| match dtype {
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => word(4 * i),
        DType::BF16 => bf16::from_le_bytes(half(i)).to_f32(),
        DType::F16 => f16::from_le_bytes(half(i)).to_f32(),
        DType::F8S if byte(i) > 127 => -f8_value(byte(i) & 127, F8S_BIAS),
        DType::F8S => f8_value(byte(i), F8S_BIAS),
        DType::F8U => f8_value(byte(i), F8U_BIAS),
        DType::Q8 => f32::from(byte(i) as i8) * scale(i),
        DType::NF4 => NF4[usize::from(byte(i / 2) >> (4 * (1 - i % 2)) & 15)] * scale(i),
    };
    (0..len).map(value).collect()
}

/// What `x` becomes when it is stored as `dtype` on its own.
///
/// Types with scales have no such number: there `x` stays what it is.
pub fn round(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_f32(x).to_f32(),
        DType::F16 => f16::from_f32(in_range(x)).to_f32(),
        DType::F8S if x < 0.0 => -f8_value(f8_code(-x, F8S_BIAS), F8S_BIAS),
        DType::F8S => f8_value(f8_code(x, F8S_BIAS), F8S_BIAS),
        DType::F8U => f8_value(f8_code(x, F8U_BIAS), F8U_BIAS),
        DType::F32 | DType::I32 | DType::U32 | DType::Bool | DType::Q8 | DType::NF4 => x,
    }
}

/// What is added to the exponents of the 8-bit floats.
const F8S_BIAS: u32 = 15;
const F8U_BIAS: u32 = 31;

/// The nearest 8-bit float, ties to even. Numbers out of range give the end that is nearer.
fn f8_code(x: f32, bias: u32) -> u8 {
    let x = x.clamp(0.0, 1.0);
    if x < f32::from_bits((128 - bias) << 23) {
        return (x * f32::from_bits((129 + bias) << 23)).round_ties_even() as u8;
    }
    let bits = x.to_bits();
    let nearest = bits + 0x7_ffff + ((bits >> 20) & 1);
    ((nearest >> 20) - ((127 - bias) << 3)) as u8
}

fn f8_value(code: u8, bias: u32) -> f32 {
    let code = u32::from(code);
    match code {
        0..8 => code as f32 * f32::from_bits((125 - bias) << 23),
        _ => f32::from_bits((code << 20) + ((127 - bias) << 23)),
    }
}

/// Finite numbers within the range of `f16`.
fn in_range(x: f32) -> f32 {
    if x.is_finite() { x.clamp(-F16_MAX, F16_MAX) } else { x }
}

/// The elements of each block with what the codes of the block depend on: `q8`'s scale or `nf4`'s largest magnitude, which
/// is the same but for a factor.
fn blocks(values: &[f32]) -> impl Iterator<Item = impl Iterator<Item = (f32, f32)> + '_> {
    values.chunks(DType::BLOCK).map(|block| {
        let max = largest(block);
        block.iter().map(move |&x| (x, max))
    })
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |max, x| x.abs().max(max))
}

fn q8_scale(block: &[f32]) -> f32 {
    largest(block) / 127.0
}

fn q8_code(x: f32, max: f32) -> i8 {
    let scale = max / 127.0;
    if scale > 0.0 { (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8 } else { 0 }
}

fn nf4_code(x: f32, max: f32) -> u8 {
    // A block of zeros has a scale of 0 and codes of any value.
    let x = if max > 0.0 { x * (1.0 / max) } else { 0.0 };
    NF4_BOUNDS.iter().filter(|&&bound| x > bound).count() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Random;

    fn values(len: usize) -> Vec<f32> {
        let mut random = Random(5);
        (0..len).map(|i| (random.real() as f32 - 0.5) * (1.0 + i as f32 / 40.0)).collect()
    }

    #[test]
    fn what_a_type_holds_comes_back() {
        for dtype in [DType::BF16, DType::F16, DType::Q8, DType::NF4] {
            let bytes = encode(dtype, &values(192));
            let stored = decode(dtype, 192, &bytes);
            assert_eq!(bytes.len() as u64, crate::types::TensorType::new(dtype, [3, 64]).bytes(), "{dtype}");
            let again = decode(dtype, 192, &encode(dtype, &stored));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-7 * b.abs();
            assert!(stored.iter().zip(&again).all(close), "{dtype}");
        }
    }

    #[test]
    fn errors_are_half_a_step() {
        for (dtype, step) in [(DType::BF16, 1.0 / 256.0), (DType::F16, 1.0 / 2048.0)] {
            let values = values(64);
            let stored = decode(dtype, 64, &encode(dtype, &values));
            assert!(values.iter().zip(&stored).all(|(a, b)| (a - b).abs() <= step * a.abs() + 1e-7), "{dtype}");
            assert!(values.iter().zip(&stored).all(|(a, b)| round(dtype, *a) == *b), "{dtype}");
        }
        for (dtype, step) in [(DType::Q8, 0.5 / 127.0), (DType::NF4, 0.152)] {
            let values = values(128);
            let stored = decode(dtype, 128, &encode(dtype, &values));
            for (block, stored) in values.chunks(64).zip(stored.chunks(64)) {
                let bound = step * largest(block) * 1.001;
                assert!(block.iter().zip(stored).all(|(a, b)| (a - b).abs() <= bound), "{dtype}");
            }
        }
    }

    #[test]
    fn eight_bit_floats_are_within_half_a_step_and_keep_one_and_zero() {
        for (dtype, smallest) in [(DType::F8S, 2f32.powi(-14)), (DType::F8U, 2f32.powi(-30))] {
            let values: Vec<f32> = (0..400).map(|i| 1.09f32.powi(-i)).chain([0.0, 1.0]).collect();
            let stored = decode(dtype, values.len(), &encode(dtype, &values));
            for (x, y) in values.iter().zip(&stored) {
                assert!((x - y).abs() <= x.max(smallest) / 16.0, "{dtype}: {x} {y}");
                assert_eq!(*y, round(dtype, *x), "{dtype}");
                assert_eq!(*y, round(dtype, *y), "{dtype}");
            }
            assert_eq!(stored[400..], [0.0, 1.0]);
        }
        assert_eq!(decode(DType::F8S, 2, &encode(DType::F8S, &[-1.0, -0.3])), [-1.0, -0.3125]);
    }

    #[test]
    fn bounds_lie_between_codes() {
        for (i, bound) in NF4_BOUNDS.iter().enumerate() {
            assert!((bound - (NF4[i] + NF4[i + 1]) / 2.0).abs() < 1e-6);
        }
    }

    #[test]
    fn codes_share_bytes_as_in_bitsandbytes() {
        let mut block = [0.0; 64];
        (block[0], block[1], block[2]) = (2.0, -2.0, 1.0);
        let bytes = encode(DType::NF4, &block);
        // codes 15 and 0, then the one for 0.5 and the one for 0
        assert_eq!(bytes[..3], [0xf0, 0xc7, 0x77]);
        assert_eq!(bytes[32..], 2.0_f32.to_le_bytes());
    }

    #[test]
    fn large_numbers_stay_finite_in_f16() {
        let stored = decode(DType::F16, 3, &encode(DType::F16, &[1e9, -1e9, f32::INFINITY]));
        assert_eq!(stored, [F16_MAX, -F16_MAX, f32::INFINITY]);
    }
}
