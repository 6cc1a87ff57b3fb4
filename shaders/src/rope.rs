//! Rotary position embedding on software devices.

use crate::attention::Rows;
use crate::launch::{self, fold};
use crate::link::{Const, Linker};
use crate::{Access, Kernel, Launch, Target};

/// Sizes of one dispatch: x `(B, T, H, E)`, tables `(T, E/2)`. Storage bindings: x, cos, sin, out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// B.
    pub batch: u32,
    /// T.
    pub positions: u32,
    /// H.
    pub heads: u32,
    /// E, a multiple of eight.
    pub width: u32,
    /// Where x lies; the result is dense.
    pub x: Rows,
    /// Whether to turn backwards.
    pub inverse: bool,
}

/// Positions of a tile.
const ROWS: u32 = 8;

/// The kernel for `target`, a software device.
pub fn kernel(target: &Target) -> Kernel {
    let (lanes, wide, steals) = (target.lanes(), target.int64, target.steals());
    let linker = launch::cells(Linker::new(), wide);
    let linker = linker.constant("LANES", Const::U32(lanes)).constant("ROWS", Const::U32(ROWS));
    let linker = linker.part(include_str!("../wgsl/rope.wgsl")).part(launch::entry(steals));
    Kernel {
        name: format!("rope{lanes}{}{}", launch::suffix(steals), if wide { "_wide" } else { "" }),
        wgsl: linker.link(),
        bindings: vec![Access::Read, Access::Read, Access::Read, Access::ReadWrite],
        param_words: 11,
        workgroup: [lanes, 1, 1],
        requires: launch::requirements(wide, steals),
    }
}

/// Parameters and grid of one dispatch of [`kernel`].
pub fn launch(problem: &Problem, target: &Target) -> Launch {
    debug_assert!(problem.width.is_multiple_of(8), "heads of {} floats", problem.width);
    let Problem { batch, positions, heads, width, x, inverse } = *problem;
    let row_tiles = positions.div_ceil(ROWS);
    let tiles = batch * row_tiles;
    let groups = fold(tiles, target);
    let half = width / 8;
    let sign: f32 = if inverse { -1.0 } else { 1.0 };
    let mut params = vec![positions, heads * half, half, sign.to_bits()];
    params.extend(x.words());
    params.extend([row_tiles, tiles, groups[0]]);
    Launch { params, groups }
}
