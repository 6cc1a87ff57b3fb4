//! The teachers: frozen vision models whose features the decoder's states are aligned with.
//!
//! A teacher is one file, which reads its `config.json`, builds its network and says what its input looks like, and one
//! entry of [`ALL`]. Releases without that file are recognised by their tensors ([`recognise`]). What they have in common is here: how their input is made out of the vision tower's, and what happens
//! where their grid of features is not that of the visual tokens.

mod clip;
mod depth_anything;
mod dinov2;
mod radio;
mod recognise;
mod sam;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use radio::RadioConfig;
use recognise::Recognise;
pub use sam::SamConfig;
use viral_compiler::types::DType;
use viral_compiler::{Graph, Value};

use super::pixels::{self, PixelNorm};
use super::source::{Interpolation, LeafSource, Origin};
use super::{TEACHER, extents};
use crate::config::{ConfigError, Document, Section};
use crate::weights::NameMap;

/// Reads a configuration file.
type Reader = fn(&Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError>;

/// Every teacher.
const ALL: &[Kind] = &[dinov2::KIND, clip::KIND, sam::KIND, depth_anything::KIND, radio::KIND];

/// What a teacher's file tells about it.
struct Kind {
    /// The values of `model_type` that it reads.
    model_types: &'static [&'static str],
    /// Reads a configuration of these types.
    read: Reader,
    /// Makes such a configuration of the tensors of a release that has none; they go by these names.
    recognise: Option<(NameMap, Recognise)>,
}

/// A frozen vision model that turns square pictures into a square grid of features.
pub trait Teacher: fmt::Debug + Send + Sync {
    /// d, the width of a feature.
    fn width(&self) -> usize;

    /// Side of a patch in pixels; a picture of `grid · patch` pixels a side has `grid · grid` features.
    fn patch(&self) -> usize;

    /// Patches along the side of the pictures that it was made for.
    fn own_grid(&self) -> usize;

    /// The largest grid that it can make features for, if there is a limit.
    fn largest_grid(&self) -> Option<usize> {
        None
    }

    /// What its pixels look like.
    fn input(&self) -> TeacherInput;

    /// From its files' names to its canonical ones.
    fn names(&self) -> NameMap;

    /// Prefixes of canonical names that its files may hold and that its features do not need.
    fn unused(&self) -> Vec<String>;

    /// Features of square `pixels (I, 3, grid·patch, grid·patch)` as `(I·grid², d)` rows. A position table that was made
    /// for another grid is resampled by `positions`, or by the teacher's own method if there is none.
    fn features(&self, g: &mut Graph, pixels: Value, positions: Option<Interpolation>) -> Value;
}

/// What a teacher's pixels look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TeacherInput {
    /// Normalised like this. The release feeds the vision tower's pixels unchanged instead.
    Normalised(PixelNorm),
    /// From 0 to 1; the network normalises them itself.
    Unit,
}

/// How the teacher's input is made out of the vision tower's pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputPath {
    /// How the tower's pixels are normalised.
    pub from: PixelNorm,
    /// Whether they are normalised anew for a teacher that wants them so. If not, it sees the tower's pixels as they are.
    pub native: bool,
    /// Side of the grid of visual tokens.
    pub grid: usize,
    /// Which picture the teacher sees.
    pub size: InputSize,
    /// How its position table is resampled, where that is needed and not left to the teacher.
    pub positions: Option<Interpolation>,
}

/// Which picture a teacher sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSize {
    /// One of the size that gives a feature for each visual token.
    Grid,
    /// One of the size that it was made for; its features are resampled to the grid of visual tokens, bilinearly.
    Own,
}

/// Reads `config.json` of a teacher's directory. Where there is none, or one that does not say what it is, as in a research
/// release, its tensors say so: `path` may then be the weight file.
///
/// # Errors
/// The file is not JSON, belongs to no known teacher, or holds a setting that is wrong or not implemented; the tensors are
/// not those of a known teacher, or leave something open.
pub fn open(path: &Path) -> Result<Arc<dyn Teacher>, ConfigError> {
    let file = path.join("config.json");
    if file.is_file() {
        let document = Document::read(&file)?;
        if document.root().value(MODEL_TYPE).is_some() {
            return read(&document.root());
        }
    }
    read(&recognise::config(path)?.root())
}

/// Reads the text of a `config.json`; `path` only appears in messages.
///
/// # Errors
/// As [`open`].
pub fn from_json(path: &Path, json: &[u8]) -> Result<Arc<dyn Teacher>, ConfigError> {
    read(&Document::parse(path, json)?.root())
}

/// The key that says which teacher a configuration is of.
const MODEL_TYPE: &str = "model_type";

fn read(s: &Section<'_>) -> Result<Arc<dyn Teacher>, ConfigError> {
    let all = || ALL.iter().flat_map(|kind| kind.model_types).copied().collect::<Vec<_>>().join(", ");
    let Some(name) = s.text(MODEL_TYPE)? else { return Err(s.wrong(MODEL_TYPE, &format!("one of {}", all()))) };
    match ALL.iter().find(|kind| kind.model_types.contains(&name)) {
        Some(kind) => (kind.read)(s),
        None => Err(s.unsupported(MODEL_TYPE, &all())),
    }
}

/// The targets `(I·grid², d)` for the visual tokens of pictures, out of the vision tower's `pixels (I, 3, S, S)`.
pub fn targets(g: &mut Graph, teacher: &dyn Teacher, path: &InputPath, pixels: Value) -> Value {
    let own = teacher.own_grid();
    let grid = match path.size {
        InputSize::Grid => path.grid,
        InputSize::Own => own,
    };
    let side = grid * teacher.patch();
    let pixels = match teacher.input() {
        TeacherInput::Normalised(to) => {
            let pixels = if path.native { pixels::renormalise(g, pixels, path.from, to) } else { pixels };
            pixels::resize_bilinear(g, pixels, side)
        }
        TeacherInput::Unit => {
            let pixels = pixels::resize_bilinear(g, pixels, side);
            let pixels = pixels::renormalise(g, pixels, path.from, PixelNorm::NONE);
            pixels::clamp_unit(g, pixels)
        }
    };
    g.scoped(TEACHER, |g| {
        let features = teacher.features(g, pixels, path.positions);
        if grid == path.grid {
            return features;
        }
        let [images] = extents(g, pixels);
        let map = g.reshape(features, &[images, grid, grid, teacher.width()]);
        let map = g.permute(map, &[0, 3, 1, 2]);
        let map = pixels::resize_bilinear(g, map, path.grid);
        let map = g.permute(map, &[0, 2, 3, 1]);
        g.reshape(map, &[images * path.grid * path.grid, teacher.width()])
    })
}

/// Canonical names and shapes of the tensors that a teacher's files must hold, in the order of a forward pass.
pub(crate) fn tensors(teacher: &dyn Teacher) -> Vec<(String, Vec<usize>)> {
    // At its own size nothing is resampled, so what the network reads is what the files hold.
    let mut g = Graph::new();
    let side = teacher.own_grid() * teacher.patch();
    let pixels = g.input("pixels", DType::F32, &[1, 3, side, side]);
    teacher.features(&mut g, pixels, None);
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    for leaf in g.leaves() {
        let (name, shape) = match LeafSource::of(leaf.name) {
            LeafSource::Tensor { origin: Origin::Teacher, name } => (name, leaf.ty.shape.clone()),
            LeafSource::Relative { name, points, .. } => {
                (name, vec![2 * points - 1, leaf.ty.shape.last().copied().unwrap_or(1)])
            }
            _ => continue,
        };
        tensors.push((name, shape));
    }
    tensors
}
