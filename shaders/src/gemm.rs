//! Matrix products: which pieces make which GEMM kernel, and how a problem becomes parameter words and a grid.
//!
//! ```text
//! C[b, m, n] = alpha * sum_k A[b, m, k] * B[b, k, n]        b = (b0, b1, b2)
//! ```
//!
//! Whatever follows the product element by element (bias, activation, residual, ..) can be done while the sums are still in
//! registers: see [`Hook`].
//!
//! Sums are taken in f32; A and B may be stored otherwise ([`Storage`]). Every operand is a strided view: an offset, a row stride and three batch strides, so that permuted, sliced and
//! expanded tensors need no copy as long as their innermost dimension is contiguous. A stride of 0 broadcasts.

use crate::launch::{self, fold};
use crate::link::{Const, Linker};
use crate::storage::Storage;
use crate::{Access, DeviceClass, Kernel, Launch, Target};

/// How A and B lie in memory, in the order of BLAS: N as written in the formula, T transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A is stored (M, K), B (K, N).
    NN,
    /// A is stored (M, K), B (N, K): a linear layer.
    NT,
    /// A is stored (K, M), B (K, N): a weight's gradient.
    TN,
    /// A is stored (K, M), B (N, K).
    TT,
}

/// What is done to every element of C when its sum is complete: text that the caller supplies.
///
/// The text declares
///
/// ```wgsl
/// fn epilogue(value: Cell, at: At) -> Cell
/// ```
///
/// which is called exactly once for each cell of C, with the finished sum (`alpha` and [`Spec::accumulate`] applied), and
/// returns what is stored to C. A *cell* is what memory is accessed by: `alias Cell = vec4<f32>` (four neighbouring
/// columns) where [`Spec::vec4`] is set, else `f32`; the constant `CELL` is their number of elements. `At` says which
/// cell it is:
///
/// ```wgsl
/// struct At {
///     batch: vec3<u32>, // b0, b1, b2
///     row: u32,         // of the matrix
///     column: u32,      // of the matrix, in cells: the first element is column CELL * column
///     index: u32,       // the number of the cell in a densely stored C: ((b0 * B1 + b1) * B2 + b2, row, column) in row-major order
/// }
/// ```
///
/// The text may declare anything else under names that begin with `hook_`: functions, constants, and its bindings, which are
/// `@group(0) @binding(4)` and so on in the order of [`Hook::bindings`] ([`Hook::BINDING`]). It reads its parameter words
/// as `p.h0`, `p.h1`, .. (`u32`); the caller appends them to [`Launch::params`]. It may write further results to bindings
/// of its own. It must not touch C, which holds partial sums before, and an invocation may rely on nothing that another one
/// writes. Control flow around the call is not uniform: no barriers, no subgroup operations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hook {
    /// Ends the kernel's name; hooks with different texts should have different names.
    pub name: String,
    /// The declarations described above.
    pub wgsl: String,
    /// Storage bindings from [`Hook::BINDING`] on.
    pub bindings: Vec<Access>,
    /// Parameter words `p.h0`, ..
    pub param_words: u32,
}

/// The compile-time half of a GEMM: problems with equal specs share one pipeline.
///
/// Storage bindings: 1 A, 2 B, 3 C, then those of the hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// How A and B lie in memory.
    pub form: Form,
    /// What the elements of A and B are stored as.
    pub storage: [Storage; 2],
    /// Whether memory is accessed in aligned groups of four floats; only where [`Problem::vec4`] allows it.
    pub vec4: bool,
    /// Whether what C held before is added to the product.
    pub accumulate: bool,
    /// What is small about the problem. It decides what is fast; every choice is correct everywhere.
    pub skew: Skew,
    /// What is done to the finished sums.
    pub hook: Option<Hook>,
}

/// Which of a problem's sizes is too small for tiles that are made for large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skew {
    /// None.
    None,
    /// The sums have at most 32 terms.
    ShortK,
    /// C has at most 16 rows, and A is stored by columns.
    FewRows,
    /// C has at most 32 columns, and more rows than that.
    FewColumns,
    /// C has at most 64 columns, and the sums have more than 32 terms.
    Narrow,
    /// C has fewer than 128 tiles of 128 x 128.
    FewTiles,
}

/// A strided matrix, or a batch of them. All numbers but the last count elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Of the first element from the start of the binding.
    pub offset: u32,
    /// From one stored row to the next. Along a stored row elements are contiguous.
    pub row_stride: u32,
    /// From one matrix to the next along b0, b1, b2.
    pub batch_strides: [u32; 3],
    /// The word of the binding at which the scales begin, where the storage has any.
    pub scales: u32,
}

/// The run-time half of a GEMM. All sizes are at least 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    /// Extents of b0, b1, b2.
    pub batch: [u32; 3],
    /// Rows of C.
    pub m: u32,
    /// Columns of C.
    pub n: u32,
    /// Length of the sums.
    pub k: u32,
    /// Factor of the product.
    pub alpha: f32,
    /// Left factor.
    pub a: Operand,
    /// Right factor.
    pub b: Operand,
    /// Result; its matrices must not overlap.
    pub c: Operand,
    /// Rows of C that a workgroup of the panel shape computes; 0 leaves it to the rule.
    pub stripe: u32,
}

/// The tiling of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Tiles of 128 x 128, or 64 x 64 where something is small, staged in workgroup memory (`gemm_tile.wgsl`): GPUs.
    Tile,
    /// Lanes side by side along C's longer rows or columns, in the registers of one SIMD vector: a block of B, or where the
    /// problem is thin ([`Skew`]) the sums (`gemm_panel.wgsl`, `gemm_thin.wgsl`). Software devices.
    Panel {
        /// Width of the vector, which is the size of the workgroup.
        lanes: u32,
        /// Whether aligned memory is accessed in 64-bit words.
        wide: bool,
        /// Whether workgroups steal tiles.
        steals: bool,
    },
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 4] = [Form::NN, Form::NT, Form::TN, Form::TT];

    /// The form in which A is stored (K, M) or not, and B (N, K) or not.
    pub fn of(a_transposed: bool, b_transposed: bool) -> Self {
        match (a_transposed, b_transposed) {
            (false, false) => Form::NN,
            (false, true) => Form::NT,
            (true, false) => Form::TN,
            (true, true) => Form::TT,
        }
    }

    /// Whether A is stored (K, M).
    pub fn a_transposed(self) -> bool {
        matches!(self, Form::TN | Form::TT)
    }

    /// Whether B is stored (N, K).
    pub fn b_transposed(self) -> bool {
        matches!(self, Form::NT | Form::TT)
    }

    /// Short name.
    pub fn name(self) -> &'static str {
        match self {
            Form::NN => "nn",
            Form::NT => "nt",
            Form::TN => "tn",
            Form::TT => "tt",
        }
    }
}

impl Hook {
    /// Number of a hook's first storage binding.
    pub const BINDING: u32 = 4;
}

impl Skew {
    /// Every skew.
    pub const ALL: [Skew; 6] =
        [Skew::None, Skew::ShortK, Skew::FewRows, Skew::FewColumns, Skew::Narrow, Skew::FewTiles];

    /// What the rule takes for small.
    pub fn of(form: Form, problem: &Problem) -> Self {
        match problem {
            Problem { m: 0..=16, .. } if form.a_transposed() => Skew::FewRows,
            Problem { m: 33.., n: 0..=32, .. } => Skew::FewColumns,
            Problem { k: 0..=32, .. } => Skew::ShortK,
            Problem { n: 0..=64, .. } => Skew::Narrow,
            Problem { m, n, .. }
                if u64::from(m.div_ceil(128)) * u64::from(n.div_ceil(128)) * u64::from(problem.batches()) < 128 =>
            {
                Skew::FewTiles
            }
            _ => Skew::None,
        }
    }

    fn is_thin(self) -> bool {
        matches!(self, Skew::FewRows | Skew::FewColumns)
    }
}

impl Operand {
    /// Matrices of `rows` stored rows of `width` elements, one after the other in the order of `batch`.
    pub fn dense(batch: [u32; 3], rows: u32, width: u32) -> Self {
        let matrix = rows * width;
        let batch_strides = [batch[1] * batch[2] * matrix, batch[2] * matrix, matrix];
        Self { offset: 0, row_stride: width, batch_strides, scales: 0 }
    }

    fn aligned(&self) -> bool {
        [self.offset, self.row_stride].iter().chain(&self.batch_strides).all(|words| words.is_multiple_of(4))
    }

    fn words(&self, cell: u32) -> [u32; 5] {
        let [b0, b1, b2] = self.batch_strides;
        [self.offset, self.row_stride, b0, b1, b2].map(|floats| floats / cell)
    }
}

impl Problem {
    /// A product of densely stored matrices, stored as `form` says; `alpha` is 1.
    pub fn dense(form: Form, batch: [u32; 3], m: u32, n: u32, k: u32) -> Self {
        let (a, b) = (
            if form.a_transposed() { Operand::dense(batch, k, m) } else { Operand::dense(batch, m, k) },
            if form.b_transposed() { Operand::dense(batch, n, k) } else { Operand::dense(batch, k, n) },
        );
        Self { batch, m, n, k, alpha: 1.0, a, b, c: Operand::dense(batch, m, n), stripe: 0 }
    }

    /// Whether a kernel with [`Spec::vec4`] may compute this: every offset and stride is a multiple of four floats, and so
    /// is the length of every stored row.
    pub fn vec4(&self, form: Form) -> bool {
        let a_row = if form.a_transposed() { self.m } else { self.k };
        let b_row = if form.b_transposed() { self.k } else { self.n };
        [a_row, b_row, self.n].iter().all(|length| length.is_multiple_of(4))
            && [self.a, self.b, self.c].iter().all(Operand::aligned)
    }

    /// The same product with its factors swapped: the transpose of C is the product of their transposes.
    fn swapped(&self) -> Self {
        Self { m: self.n, n: self.m, a: self.b, b: self.a, ..*self }
    }

    /// Number of matrices.
    pub fn batches(&self) -> u32 {
        self.batch.iter().fold(1, |product, &extent| product.saturating_mul(extent))
    }
}

impl Spec {
    /// The fastest spec that may compute `problem`, without a hook.
    pub fn fit(form: Form, problem: &Problem) -> Self {
        let storage = [Storage::F32; 2];
        Self { form, storage, vec4: problem.vec4(form), accumulate: false, skew: Skew::of(form, problem), hook: None }
    }

    /// Whether a lane of a panel has two times four columns.
    fn paired(&self) -> bool {
        self.skew != Skew::Narrow
    }
}

impl Shape {
    /// The shape for `target`.
    pub fn choose(target: &Target) -> Self {
        match target.class {
            DeviceClass::Cpu => Self::panel(target),
            DeviceClass::Gpu => Self::Tile,
        }
    }

    /// The panel shape for `target`.
    pub fn panel(target: &Target) -> Self {
        Self::Panel { lanes: target.lanes(), wide: target.int64, steals: target.steals() }
    }

    /// Rows and columns of C that one workgroup computes; where the kernel swaps factors, of its transpose.
    pub fn tile(self, spec: &Spec, problem: &Problem) -> [u32; 2] {
        match self {
            Shape::Tile => [side(spec); 2],
            Shape::Panel { lanes, .. } if spec.skew.is_thin() => [16, 4 * lanes],
            Shape::Panel { lanes, .. } => {
                let columns = if spec.paired() { 8 } else { 4 } * lanes;
                if problem.stripe > 0 {
                    return [problem.stripe.min(problem.m).next_multiple_of(4), columns];
                }
                // A long stripe reads B less often, but every core should get some stripes.
                let panels = problem.n.div_ceil(columns).saturating_mul(problem.batches());
                let stripes = PANEL_GROUPS.div_ceil(panels).min(problem.m.div_ceil(PANEL_ROWS[0]));
                let stripes = stripes.max(problem.m.div_ceil(PANEL_ROWS[1]));
                [problem.m.div_ceil(stripes).next_multiple_of(4), columns]
            }
        }
    }
}

/// The kernel for `spec` on `target`. Its text depends on the target's class, subgroup size and 64-bit integers only.
pub fn kernel(spec: &Spec, target: &Target) -> Kernel {
    link(spec, Shape::choose(target))
}

/// Parameters and grid of one dispatch of [`kernel`]`(spec, target)`. The caller appends the hook's words.
pub fn launch(spec: &Spec, problem: &Problem, target: &Target) -> Launch {
    launch_shape(spec, problem, Shape::choose(target), target)
}

/// The fragments that access C in one way, and the one that hands sums to the epilogue.
macro_rules! pieces {
    ($access:literal, $cell:literal) => {
        [
            include_str!(concat!("../lib/gemm_c_", $access, ".wgsl")),
            include_str!(concat!("../lib/gemm_finish_", $cell, ".wgsl")),
        ]
    };
}

/// The hook `load_a` or `load_b`: four consecutive elements of the operand from cell `at` on; those beyond the `last`-th
/// (0 .. 3) are not read and repeat it. A cell of four elements is never cut.
fn load_hook(operand: &str, storage: Storage, vec4: bool) -> String {
    let scales = format!("p.{operand}_scales");
    let value = if vec4 {
        storage.four(operand, "at", &scales)
    } else {
        let element = |i: u32| storage.element(operand, false, &format!("at + min({i}u, last)"), &scales);
        format!("vec4<f32>({}, {}, {}, {})", element(0), element(1), element(2), element(3))
    };
    format!(
        "@group(0) @binding({}_BINDING) var<storage, read> {operand}: array<{}>;\n\n\
         fn load_{operand}(at: u32, last: u32) -> vec4<f32> {{\n    return {value};\n}}\n",
        operand.to_uppercase(),
        storage.word(vec4),
    )
}

/// The kernel for `spec` in a given shape; [`kernel`] chooses the shape from the target.
pub fn link(spec: &Spec, shape: Shape) -> Kernel {
    let steals = matches!(shape, Shape::Panel { steals: true, .. });
    let wide = spec.vec4 && matches!(shape, Shape::Panel { wide: true, .. });
    let (kind, [access_c, finish]) = match (wide, spec.vec4) {
        (true, _) => ("wide", pieces!("wide", "vec4")),
        (false, true) => ("vec4", pieces!("vec4", "vec4")),
        (false, false) => ("scalar", pieces!("scalar", "scalar")),
    };
    let epilogue = spec.hook.as_ref().map_or(include_str!("../lib/gemm_epilogue_none.wgsl"), |hook| &hook.wgsl);
    let suffix = if spec.accumulate { "_accumulate" } else { "" };
    let hook = spec.hook.as_ref().map(|hook| format!("_{}", hook.name)).unwrap_or_default();
    let mut bindings = vec![Access::Read, Access::Read, Access::ReadWrite];
    bindings.extend(spec.hook.iter().flat_map(|hook| &hook.bindings));

    let swapped = swaps(spec, shape);
    let [a, b] = spec.storage;
    let (a, b) = if swapped { (b, a) } else { (a, b) };
    let load_a = match a {
        Storage::F32 if wide => include_str!("../lib/gemm_load_a_wide.wgsl").to_owned(),
        _ => load_hook("a", a, spec.vec4),
    };
    let load_b = match b {
        Storage::F32 if wide => include_str!("../lib/gemm_load_b_wide.wgsl").to_owned(),
        _ => load_hook("b", b, spec.vec4),
    };
    let stored = match spec.storage {
        [Storage::F32, Storage::F32] => String::new(),
        [a, b] => format!("_{}_{}", a.name(), b.name()),
    };
    let (a_transposed, b_transposed) = (spec.form.a_transposed(), spec.form.b_transposed());
    let linker = Linker::new()
        .constant("A_TRANSPOSED", Const::Bool(if swapped { !b_transposed } else { a_transposed }))
        .constant("B_TRANSPOSED", Const::Bool(if swapped { !a_transposed } else { b_transposed }))
        .constant("C_TRANSPOSED", Const::Bool(swapped))
        .constant("A_BINDING", Const::U32(if swapped { 2 } else { 1 }))
        .constant("B_BINDING", Const::U32(if swapped { 1 } else { 2 }))
        .constant("ACCUMULATE", Const::Bool(spec.accumulate))
        .constant("CELL", Const::U32(cell(spec)))
        .alias("Cell", if spec.vec4 { "vec4<f32>" } else { "f32" })
        .part(&params_struct(hook_words(spec)));
    let (file, workgroup, linker, body, blocks) = match shape {
        Shape::Tile => {
            let linker = linker.constant("SIDE", Const::U32(side(spec)));
            (format!("gemm_tile{}", side(spec)), 256, linker, include_str!("../wgsl/gemm_tile.wgsl"), 0)
        }
        Shape::Panel { lanes, .. } => {
            let linker = linker.constant("LANES", Const::U32(lanes));
            let panel = |depth| {
                let linker = linker.clone().constant("DEPTH", Const::U32(depth));
                let linker = linker.constant("PAIRED", Const::Bool(spec.paired()));
                match (spec.form.a_transposed(), wide && a == Storage::F32) {
                    (false, _) => linker.part(include_str!("../lib/gemm_rows_one.wgsl")),
                    (true, true) => linker
                        .part(include_str!("../lib/gemm_rows_two.wgsl"))
                        .part(include_str!("../lib/gemm_pair_wide.wgsl")),
                    (true, false) => linker
                        .part(include_str!("../lib/gemm_rows_two.wgsl"))
                        .part(include_str!("../lib/gemm_pair.wgsl")),
                }
            };
            let (file, depth) = match spec.skew {
                Skew::FewRows => ("thin_rows", 0),
                Skew::FewColumns => ("thin_columns", 0),
                Skew::ShortK => ("panel_short", 16),
                Skew::None | Skew::FewTiles => ("panel", 64),
                Skew::Narrow => ("panel_narrow", 64),
            };
            let (linker, body) = match depth {
                0 => (linker, include_str!("../wgsl/gemm_thin.wgsl")),
                depth => (panel(depth), include_str!("../wgsl/gemm_panel.wgsl")),
            };
            (format!("gemm_{file}{lanes}{}", launch::suffix(steals)), lanes, linker, body, depth / 4)
        }
    };
    let linker = linker.part(include_str!("../lib/gemm_params.wgsl")).part(&load_a).part(&load_b).part(access_c);
    let linker = linker.part(Storage::functions(&[&load_a, &load_b, epilogue].concat()));
    let linker = if wide { linker.part(include_str!("../lib/wide.wgsl")) } else { linker };
    let linker = linker.part(finish).part(epilogue).part(include_str!("../lib/gemm_blocks.wgsl"));
    let linker = linker.unrolled(body, &[("$i", blocks)]);
    let linker = if shape == Shape::Tile { linker } else { linker.part(launch::entry(steals)) };
    Kernel {
        name: format!("{file}_{}_{kind}{stored}{suffix}{hook}", spec.form.name()),
        wgsl: linker.link(),
        bindings,
        param_words: PARAMS.len() as u32 + hook_words(spec),
        workgroup: [workgroup, 1, 1],
        requires: launch::requirements(wide, steals),
    }
}

/// Parameters and grid of one dispatch of [`link`]`(spec, shape)`. The caller appends the hook's words.
pub fn launch_shape(spec: &Spec, problem: &Problem, shape: Shape, target: &Target) -> Launch {
    debug_assert!(!spec.vec4 || problem.vec4(spec.form), "not aligned to four floats: {problem:?}");
    let problem = &if swaps(spec, shape) { problem.swapped() } else { *problem };
    let [tile_rows, tile_columns] = shape.tile(spec, problem);
    let row_tiles = problem.m.div_ceil(tile_rows);
    let column_tiles = problem.n.div_ceil(tile_columns);
    let tiles = row_tiles.saturating_mul(column_tiles).saturating_mul(problem.batches());
    let groups = fold(tiles, target);

    let mut params = vec![problem.m, problem.n, problem.k, problem.alpha.to_bits()];
    for operand in [problem.a, problem.b, problem.c] {
        params.extend(operand.words(cell(spec)));
    }
    params.extend([problem.a.scales, problem.b.scales]);
    params.extend([problem.batch[1], problem.batch[2], tile_rows, row_tiles, column_tiles, tiles, groups[0]]);
    Launch { params, groups }
}

/// `struct Params` with this many words for a hook.
fn params_struct(hook_words: u32) -> String {
    let params = PARAMS.map(str::to_owned).into_iter().chain((0..hook_words).map(|i| format!("h{i}: u32")));
    let params = params.map(|field| format!("    {field},\n")).collect::<String>();
    format!("struct Params {{\n{params}}}\n")
}

/// Fields of `Params`, which `gemm_params.wgsl` describes, in the order in which [`launch_shape`] writes them.
pub(crate) const PARAMS: [&str; 28] = [
    "m: u32",
    "n: u32",
    "k: u32",
    "alpha: f32", //
    "a_offset: u32",
    "a_row: u32",
    "a_batch0: u32",
    "a_batch1: u32",
    "a_batch2: u32", //
    "b_offset: u32",
    "b_row: u32",
    "b_batch0: u32",
    "b_batch1: u32",
    "b_batch2: u32", //
    "c_offset: u32",
    "c_row: u32",
    "c_batch0: u32",
    "c_batch1: u32",
    "c_batch2: u32", //
    "a_scales: u32",
    "b_scales: u32",
    "batch1: u32",
    "batch2: u32",
    "tile_rows: u32",
    "row_tiles: u32",
    "column_tiles: u32",
    "tiles: u32",
    "grid_x: u32",
];

/// Shortest and longest stripe that the panel shape cuts C into, in rows, if there is a choice.
const PANEL_ROWS: [u32; 2] = [64, 384];

/// Workgroups that the panel shape aims at, so that cores that are done early find work to steal.
const PANEL_GROUPS: u32 = 16;

pub(crate) fn variants(shape: Shape, skews: &[Skew]) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    for form in Form::ALL {
        for (vec4, accumulate) in [(true, false), (true, true), (false, false), (false, true)] {
            let spec = |skew| Spec { form, storage: [Storage::F32; 2], vec4, accumulate, skew, hook: None };
            kernels.extend(skews.iter().map(|&skew| link(&spec(skew), shape)));
        }
    }
    // Frozen weights are right factors, of a linear map or of its gradient.
    for (form, stored, &skew) in [Form::NT, Form::NN].into_iter().flat_map(|form| {
        Storage::WEIGHTS.into_iter().skip(1).flat_map(move |stored| skews.iter().map(move |skew| (form, stored, skew)))
    }) {
        for vec4 in [true, false] {
            let storage = [Storage::F32, stored];
            kernels.push(link(&Spec { form, storage, vec4, accumulate: false, skew, hook: None }, shape));
        }
    }
    kernels
}

/// Rows and columns of a tile on a GPU.
fn side(spec: &Spec) -> u32 {
    if spec.skew == Skew::None { 128 } else { 64 }
}

/// Whether the kernel computes the transpose of C, from swapped factors.
fn swaps(spec: &Spec, shape: Shape) -> bool {
    spec.skew == Skew::FewColumns && matches!(shape, Shape::Panel { .. })
}

fn hook_words(spec: &Spec) -> u32 {
    spec.hook.as_ref().map_or(0, |hook| hook.param_words)
}

/// Floats in a cell, the unit in which the kernel addresses memory.
fn cell(spec: &Spec) -> u32 {
    if spec.vec4 { 4 } else { 1 }
}
