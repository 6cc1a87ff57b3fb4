//! From the name of a leaf to its content: tensors that are loaded, and tables that are computed.
//!
//! A leaf's name says everything: `rope.cos@128x32,theta=10000` can be computed by whoever reads it, without the
//! configuration that the graph was built from.

use std::fmt;

use viral_compiler::passes::rows_name;
use viral_compiler::{Graph, Value};

use super::diffusion::{schedule, timesteps};
use super::leaf::{Part, part_of};
use super::taps::{resample_grid, resample_rows, taps};
use super::{TEACHER, VAE};

/// Which file a tensor is loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The LLaVA checkpoint. An adapter directory may hold a newer multi-modal projector.
    Model,
    /// The teacher's checkpoint.
    Teacher,
    /// The variational autoencoder's checkpoint.
    Vae,
    /// The adapter directory, or a fresh initialisation: LoRA's matrices and the modules around the decoder.
    Adapter,
}

/// How values between the points of a grid are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Two taps, half-pixel centres.
    Bilinear,
    /// Four taps with a = -0.75, half-pixel centres, edges repeated.
    Bicubic,
    /// As [`Self::Bicubic`], as if the new grid had 0.1 points more: DINOv2's own code.
    OffsetBicubic,
    /// Cubic with a = -0.5 and a support that grows when the grid shrinks, normalised at the edges.
    AntialiasedBicubic,
}

impl Interpolation {
    const ALL: [Self; 4] = [Self::Bilinear, Self::Bicubic, Self::OffsetBicubic, Self::AntialiasedBicubic];

    fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::OffsetBicubic => "offset_bicubic",
            Self::AntialiasedBicubic => "antialiased_bicubic",
        }
    }
}

/// What marks a table of relative positions in a leaf's name.
const RELATIVE: &str = "relative";
/// What marks some rows of a table, as [`rows_name`] writes it.
const ROWS: &str = "rows";
/// What marks a convolution's weight that lies tap by tap.
const TAPS: &str = "taps";

/// Half of a rotary table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePart {
    /// Cosines of the angles.
    Cos,
    /// Sines of the angles.
    Sin,
}

/// Where the content of a weight or parameter comes from. [`fmt::Display`] gives the leaf's name, [`LeafSource::of`] goes
/// back.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafSource {
    /// A tensor of a file, as it is stored.
    Tensor {
        /// Which file.
        origin: Origin,
        /// Canonical name in that file.
        name: String,
    },
    /// A position table at another grid; a row before the grid's own (class token) stays as it is.
    PositionTable {
        /// Which file the stored table is in.
        origin: Origin,
        /// Canonical name of the stored table.
        name: String,
        /// Rows and columns of the new grid.
        grid: [usize; 2],
        /// How the table is resampled.
        filter: Interpolation,
    },
    /// Rows of a table of relative positions, one for each pair of points on an axis: `(points, points, width)`, of which
    /// row `(q, k)` is the stored row `q - k + points - 1`. A table for another number of points is resampled, linearly.
    Relative {
        /// Which file the stored table is in, `(2·points - 1, width)` where it is made for these.
        origin: Origin,
        /// Canonical name of the stored table.
        name: String,
        /// Points on the axis.
        points: usize,
    },
    /// Some rows of a table that the compiler has cut, because it is too large for one binding.
    Rows {
        /// Which file the table is in.
        origin: Origin,
        /// Canonical name of the table.
        name: String,
        /// The first row.
        start: usize,
        /// Rows.
        count: usize,
    },
    /// The weight `(outputs, inputs, 3, 3)` of a convolution as nine matrices, `(9, outputs, inputs)`.
    Taps {
        /// Which file the weight is in.
        origin: Origin,
        /// Canonical name of the weight.
        name: String,
        /// Channels of the result.
        outputs: usize,
        /// Channels of what is convolved.
        inputs: usize,
    },
    /// Rotary angles' cosines or sines, `(positions, half)`.
    Rope {
        /// Which.
        part: RopePart,
        /// Positions, from 0.
        positions: usize,
        /// Half the width of a head.
        half: usize,
        /// Base of the frequencies.
        theta: f64,
    },
    /// The matrix `(to, from)` that resizes an axis bilinearly.
    Bilinear {
        /// Extent after.
        to: usize,
        /// Extent before.
        from: usize,
    },
    /// What each step of a diffusion leaves of what was there, and of noise, `(steps, 2)`.
    Diffusion {
        /// Steps.
        steps: usize,
    },
    /// What the number of each step of a diffusion looks like, `(steps, 2·half)`.
    Timesteps {
        /// Steps.
        steps: usize,
        /// Frequencies, each with a cosine and a sine.
        half: usize,
    },
}

/// The content of a leaf cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError<E> {
    /// Loading a tensor failed.
    #[error(transparent)]
    Load(E),
    /// A stored position table has an unexpected form.
    #[error("position table `{name}` of shape {shape:?} is not a square grid of rows, with or without a class token")]
    PositionTable {
        /// Canonical name.
        name: String,
        /// Stored shape.
        shape: Vec<usize>,
    },
    /// A stored table is shorter than the network needs.
    #[error("table `{name}` of shape {shape:?} has no row {}", end - 1)]
    Rows {
        /// Canonical name.
        name: String,
        /// Stored shape.
        shape: Vec<usize>,
        /// Rows that it should have at least.
        end: usize,
    },
    /// A stored table of relative positions has an unexpected form.
    #[error("table `{name}` of shape {shape:?} does not hold relative positions in its rows")]
    RelativeTable {
        /// Canonical name.
        name: String,
        /// Stored shape.
        shape: Vec<usize>,
    },
}

impl LeafSource {
    /// The position table of this full name, resampled.
    pub(super) fn position_table(leaf: &str, grid: [usize; 2], filter: Interpolation) -> Self {
        let (origin, name) = origin_of(leaf);
        Self::PositionTable { origin, name: name.to_owned(), grid, filter }
    }

    /// Some rows of the table of this full name.
    fn rows(leaf: &str, start: usize, count: usize) -> Self {
        let (origin, name) = origin_of(leaf);
        Self::Rows { origin, name: name.to_owned(), start, count }
    }

    /// The weight of the convolution of this full name, tap by tap.
    pub(super) fn taps(leaf: &str, outputs: usize, inputs: usize) -> Self {
        let (origin, name) = origin_of(leaf);
        Self::Taps { origin, name: name.to_owned(), outputs, inputs }
    }

    /// The rows of the table of relative positions of this full name.
    pub(super) fn relative(leaf: &str, points: usize) -> Self {
        let (origin, name) = origin_of(leaf);
        Self::Relative { origin, name: name.to_owned(), points }
    }

    /// The source of the leaf of this name.
    pub fn of(leaf: &str) -> Self {
        Self::computed(leaf).unwrap_or_else(|| {
            let (origin, name) = origin_of(leaf);
            Self::Tensor { origin, name: name.to_owned() }
        })
    }

    /// The content, row-major. `load` gives shape and elements of a stored tensor.
    ///
    /// # Errors
    /// `load` fails, or a stored position table is not one.
    pub fn content<E>(
        &self,
        load: impl FnOnce(Origin, &str) -> Result<(Vec<usize>, Vec<f32>), E>,
    ) -> Result<Vec<f32>, SourceError<E>> {
        match self {
            Self::Tensor { origin, name } => Ok(load(*origin, name).map_err(SourceError::Load)?.1),
            Self::PositionTable { origin, name, grid, filter } => {
                let (shape, table) = load(*origin, name).map_err(SourceError::Load)?;
                let width = shape.last().copied().unwrap_or(0).max(1);
                let rows = table.len() / width;
                // A square number of rows is a grid alone, one more a grid behind a class token.
                let extra = usize::from(rows.isqrt().pow(2) != rows);
                let side = (rows - extra).isqrt();
                if side == 0 || table.len() != (extra + side * side) * width {
                    return Err(SourceError::PositionTable { name: name.clone(), shape });
                }
                let (class, patches) = table.split_at(extra * width);
                Ok([class.to_vec(), resample_grid(patches, side, *grid, width, *filter)].concat())
            }
            Self::Relative { origin, name, points } => {
                let (shape, table) = load(*origin, name).map_err(SourceError::Load)?;
                let width = shape.last().copied().unwrap_or(0).max(1);
                let (stored, distances) = (table.len() / width, (2 * points).saturating_sub(1));
                if shape.len() != 2 || stored == 0 {
                    return Err(SourceError::RelativeTable { name: name.clone(), shape });
                }
                let table = if stored == distances { table } else { resample_rows(&table, stored, distances, width) };
                // Row q of the result runs backwards through the table, from distance q to distance q - points + 1.
                let rows = (0..*points).flat_map(|q| (0..*points).map(move |k| q + points - 1 - k));
                Ok(rows.flat_map(|row| &table[row * width..(row + 1) * width]).copied().collect())
            }
            Self::Rows { origin, name, start, count } => {
                let (shape, table) = load(*origin, name).map_err(SourceError::Load)?;
                let width: usize = shape.iter().skip(1).product();
                let rows = table.get(start * width..(start + count) * width).map(<[f32]>::to_vec);
                rows.ok_or_else(|| SourceError::Rows { name: name.clone(), shape, end: start + count })
            }
            Self::Taps { origin, name, .. } => {
                const POINTS: usize = 9;
                let (_, weight) = load(*origin, name).map_err(SourceError::Load)?;
                Ok((0..POINTS).flat_map(|tap| weight.iter().skip(tap).step_by(POINTS)).copied().collect())
            }
            Self::Rope { part, positions, half, theta } => Ok(rope_table(*part, *positions, *half, *theta)),
            Self::Bilinear { to, from } => {
                Ok(taps(Interpolation::Bilinear, *to, *from).into_iter().map(|tap| tap as f32).collect())
            }
            Self::Diffusion { steps } => Ok(schedule(*steps)),
            Self::Timesteps { steps, half } => Ok(timesteps(*steps, *half)),
        }
    }

    /// The frozen leaf of a computed table.
    pub(super) fn leaf(&self, g: &mut Graph, shape: &[usize]) -> Value {
        g.weight(self.to_string(), shape)
    }

    /// The source of a table that is computed, whose name has parameters behind an `@`.
    fn computed(leaf: &str) -> Option<Self> {
        let (name, parameters) = leaf.rsplit_once('@')?;
        let (extents, parameter) = parameters.split_once(',').map_or((parameters, None), |(e, p)| (e, Some(p)));
        let (a, b) = extents.split_once('x')?;
        let (a, b) = (a.parse().ok()?, b.parse().ok()?);
        let rope = |part| {
            let theta = parameter?.strip_prefix("theta=")?.parse().ok()?;
            Some(Self::Rope { part, positions: a, half: b, theta })
        };
        match name {
            "rope.cos" => rope(RopePart::Cos),
            "rope.sin" => rope(RopePart::Sin),
            "bilinear" => Some(Self::Bilinear { to: a, from: b }),
            "diffusion" => Some(Self::Diffusion { steps: a }),
            "timesteps" => Some(Self::Timesteps { steps: a, half: b }),
            _ => {
                match parameter {
                    Some(RELATIVE) => return Some(Self::relative(name, a)),
                    Some(ROWS) => return Some(Self::rows(name, a, b)),
                    Some(TAPS) => return Some(Self::taps(name, a, b)),
                    _ => {}
                }
                let filter = Interpolation::ALL.into_iter().find(|filter| Some(filter.name()) == parameter)?;
                Some(Self::position_table(name, [a, b], filter))
            }
        }
    }
}

impl fmt::Display for LeafSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = |origin: &Origin| match origin {
            Origin::Teacher => format!("{TEACHER}."),
            Origin::Vae => format!("{VAE}."),
            Origin::Model | Origin::Adapter => String::new(),
        };
        match self {
            Self::Tensor { origin, name } => write!(f, "{}{name}", prefix(origin)),
            Self::PositionTable { origin, name, grid: [rows, columns], filter } => {
                write!(f, "{}{name}@{rows}x{columns},{}", prefix(origin), filter.name())
            }
            Self::Relative { origin, name, points } => {
                write!(f, "{}{name}@{points}x{points},{RELATIVE}", prefix(origin))
            }
            Self::Rows { origin, name, start, count } => {
                f.write_str(&rows_name(&format!("{}{name}", prefix(origin)), *start, *count))
            }
            Self::Taps { origin, name, outputs, inputs } => {
                write!(f, "{}{name}@{outputs}x{inputs},{TAPS}", prefix(origin))
            }
            Self::Rope { part, positions, half, theta } => {
                let part = match part {
                    RopePart::Cos => "cos",
                    RopePart::Sin => "sin",
                };
                write!(f, "rope.{part}@{positions}x{half},theta={theta}")
            }
            Self::Bilinear { to, from } => write!(f, "bilinear@{to}x{from}"),
            Self::Diffusion { steps } => write!(f, "diffusion@{steps}x2"),
            Self::Timesteps { steps, half } => write!(f, "timesteps@{steps}x{half}"),
        }
    }
}

/// The file that the tensor of a leaf is in, and its name there.
fn origin_of(leaf: &str) -> (Origin, &str) {
    for (prefix, origin) in [(TEACHER, Origin::Teacher), (VAE, Origin::Vae)] {
        if let Some(name) = leaf.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
            return (origin, name);
        }
    }
    match part_of(leaf) {
        Part::Adapter | Part::Alignment | Part::Residual | Part::Denoiser => (Origin::Adapter, leaf),
        Part::Projector | Part::Language | Part::Frozen => (Origin::Model, leaf),
    }
}

/// Angles are rounded to `f32` where the library rounds them: the power, its reciprocal, and the product with the
/// position. What is between the roundings is computed in `f64`, which makes the table the same on every machine.
fn rope_table(part: RopePart, positions: usize, half: usize, theta: f64) -> Vec<f32> {
    let frequencies: Vec<f32> = (0..half)
        .map(|j| {
            let exponent = (2 * j) as f32 / (2 * half) as f32;
            1.0 / f64::from(theta as f32).powf(f64::from(exponent)) as f32
        })
        .collect();
    let angles = (0..positions).flat_map(|position| frequencies.iter().map(move |f| f64::from(position as f32 * f)));
    angles
        .map(|angle| match part {
            RopePart::Cos => angle.cos() as f32,
            RopePart::Sin => angle.sin() as f32,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sources_correspond() {
        let tensor = |origin, name: &str| LeafSource::Tensor { origin, name: name.into() };
        let cases = [
            ("lm_head.weight", tensor(Origin::Model, "lm_head.weight")),
            ("teacher.layernorm.bias", tensor(Origin::Teacher, "layernorm.bias")),
            ("alignment_projector.projector.0.bias", tensor(Origin::Adapter, "alignment_projector.projector.0.bias")),
            (
                "teacher.embeddings.position_embeddings@24x25,bicubic",
                LeafSource::PositionTable {
                    origin: Origin::Teacher,
                    name: "embeddings.position_embeddings".into(),
                    grid: [24, 25],
                    filter: Interpolation::Bicubic,
                },
            ),
            (
                "teacher.layers.0.attn.rel_pos_h@14x14,relative",
                LeafSource::Relative { origin: Origin::Teacher, name: "layers.0.attn.rel_pos_h".into(), points: 14 },
            ),
            (
                "lm_head.weight@76032x100,rows",
                LeafSource::Rows { origin: Origin::Model, name: "lm_head.weight".into(), start: 76032, count: 100 },
            ),
            (
                "rope.sin@2048x64,theta=1000000",
                LeafSource::Rope { part: RopePart::Sin, positions: 2048, half: 64, theta: 1e6 },
            ),
            ("bilinear@384x336", LeafSource::Bilinear { to: 384, from: 336 }),
            (
                "vae.encoder.conv_in.weight@8x3,taps",
                LeafSource::Taps { origin: Origin::Vae, name: "encoder.conv_in.weight".into(), outputs: 8, inputs: 3 },
            ),
            ("vae.encoder.conv_in.bias", tensor(Origin::Vae, "encoder.conv_in.bias")),
            ("denoiser.net.pos_embed", tensor(Origin::Adapter, "denoiser.net.pos_embed")),
            ("diffusion@1000x2", LeafSource::Diffusion { steps: 1000 }),
            ("timesteps@1000x128", LeafSource::Timesteps { steps: 1000, half: 128 }),
        ];
        for (name, source) in cases {
            assert_eq!(source.to_string(), name);
            assert_eq!(LeafSource::of(name), source);
        }
    }

    #[test]
    fn rotary_angles_are_rounded_as_in_the_library() {
        let source = LeafSource::Rope { part: RopePart::Cos, positions: 3, half: 2, theta: 10000.0 };
        let table = source.content(|_, _| Err("nothing is loaded")).unwrap();
        let expected = [1.0, 1.0, 0.540_302_3, 0.999_95, -0.416_146_84, 0.999_8];
        assert!(table.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-7), "{table:?}");
    }

    #[test]
    fn a_foreign_position_table_is_an_error() {
        let source = LeafSource::of("teacher.p@2x2,bicubic");
        let error = source.content(|_, _| Ok::<_, String>((vec![1, 6, 2], vec![0.0; 12]))).unwrap_err();
        assert!(matches!(error, SourceError::PositionTable { ref name, .. } if name == "p"), "{error}");
    }
}
