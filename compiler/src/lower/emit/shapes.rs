//! The three kernels around a body: which work item computes which points, and in which order reductions happen.

use std::fmt::Write as _;

use viral_shaders::DeviceClass;

use super::Emitter;
use crate::lower::body::{ExprId, ExprKind};

impl Emitter<'_> {
    /// Recovers the indices of `dims` from the flat number in `flat`. `cells` numbers cells of `width` elements.
    pub(super) fn unflatten(&mut self, flat: &str, dims: std::ops::Range<usize>, cells: bool) -> String {
        let mut text = String::new();
        let mut rest = flat.to_owned();
        for dim in dims.clone().rev() {
            let width = if cells && Some(dim) == self.inner { self.width } else { 1 };
            let scale = if width == 4 { " * 4u" } else { "" };
            if dim == dims.start {
                let _ = writeln!(text, "let i{dim} = ({rest}){scale};");
            } else {
                let extent = self.word((self.body.dims[dim] / width) as i64);
                let _ = writeln!(text, "let i{dim} = (({rest}) % {extent}){scale};");
                let _ = writeln!(text, "let rest{dim} = ({rest}) / {extent};");
                rest = format!("rest{dim}");
            }
        }
        text
    }

    pub(super) fn extent(&self, dims: std::ops::Range<usize>) -> usize {
        self.body.dims[dims].iter().product()
    }

    /// Work items for `(rows, cells)`.
    pub(super) fn grid(&mut self, rows: usize, cells: usize) -> Grid {
        // On a software device a workgroup is one vector, unless most of it would have nothing to do.
        let lanes = self.row_lanes(cells);
        if self.target.class == DeviceClass::Cpu && (rows == 1 || 2 * cells >= lanes as usize) {
            return self.stripes(rows, cells, lanes);
        }
        let limit = self.target.max_workgroups_per_dimension as usize;
        let width = match cells {
            _ if rows == 1 => 64,
            48.. => 64,
            24.. => 32,
            _ => 16,
        };
        let height = 64 / width;
        let (columns, lines) = (cells.div_ceil(width), rows.div_ceil(height));
        let (n_rows, n_cells) = (self.word(rows as i64), self.word(cells as i64));
        // One long row folds along y; many rows fold along z.
        let (row, cell, groups) = if rows == 1 {
            let y = columns.div_ceil(limit);
            ("0u".to_owned(), format!("(wg.y * nwg.x + wg.x) * {width}u + lid.x"), [columns.div_ceil(y), y, 1])
        } else {
            let z = lines.div_ceil(limit);
            (
                format!("(wg.z * nwg.y + wg.y) * {height}u + lid.y"),
                format!("wg.x * {width}u + lid.x"),
                [columns, lines.div_ceil(z), z],
            )
        };
        Grid {
            row: format!("let row = {row};\nif (row >= {n_rows}) {{ return; }}\n"),
            cell: format!("let cell = {cell};\nif (cell >= {n_cells}) {{ return; }}\n"),
            end: "",
            workgroup: [width as u32, height as u32, 1],
            groups: groups.map(|n| n as u32),
        }
    }

    /// Work items for a software device, where starting a workgroup costs as much as several cells: each walks over a
    /// number of them. Rows are the same for all of its lanes, so their indices, and the divisions that these take, are
    /// computed once and not lane by lane.
    fn stripes(&mut self, rows: usize, cells: usize, lanes: u32) -> Grid {
        let limit = self.target.max_workgroups_per_dimension as usize;
        let vector = lanes as usize;
        let long =
            (STRIPE * vector).min(cells.div_ceil(LEAST_GROUPS).max(cells.div_ceil(limit)).next_multiple_of(vector));
        let cells_each = if rows == 1 { long } else { cells.next_multiple_of(vector).min(STRIPE * vector) };
        let cells_each = cells_each.max(cells.div_ceil(limit));
        let rows_each = self.rows_each(rows, cells_each.div_ceil(vector));
        let (n_rows, n_cells) = (self.word(rows as i64), self.word(cells as i64));
        let (rows_word, cells_word) = (self.word(rows_each as i64), self.word(cells_each as i64));
        Grid {
            row: format!(
                "let end_row = min((wg.y + 1u) * {rows_word}, {n_rows});\n\
                 for (var row = wg.y * {rows_word}; row < end_row; row++) {{\n"
            ),
            cell: format!(
                "let end_cell = min((wg.x + 1u) * {cells_word}, {n_cells});\n\
                 for (var cell = wg.x * {cells_word} + lid.x; cell < end_cell; cell += {lanes}u) {{\n"
            ),
            end: "}\n}\n",
            workgroup: [lanes, 1, 1],
            groups: [cells.div_ceil(cells_each), rows.div_ceil(rows_each), 1].map(|n| n as u32),
        }
    }

    /// Rows that one workgroup of a software device computes, each in this many steps.
    fn rows_each(&self, rows: usize, steps: usize) -> usize {
        let limit = self.target.max_workgroups_per_dimension as usize;
        (STRIPE / steps.max(1)).min(rows.div_ceil(LEAST_GROUPS)).max(rows.div_ceil(limit)).max(1)
    }

    pub(super) fn map(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let rank = self.body.dims.len();
        let outer = rank.saturating_sub(1);
        let cells = self.inner.map_or(1, |inner| self.body.dims[inner] / self.width);
        let grid = self.grid(self.extent(0..outer), cells);
        let mut text = grid.row;
        text += &self.unflatten("row", 0..outer, false);
        let roots: Vec<ExprId> = self.body.stores.iter().map(|store| store.expr).collect();
        let in_row = self.body.depends_on(outer..rank);
        for id in (0..in_row.len()).filter(|&id| !in_row[id]) {
            text += &self.define(id);
        }
        text += &grid.cell;
        text += &self.unflatten("cell", outer..rank, true);
        text += &self.define_all(&roots, |id| in_row[id]);
        for index in 0..self.body.stores.len() {
            text += &self.store(index);
        }
        (text + grid.end, grid.workgroup, grid.groups)
    }

    pub(super) fn column(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let [outer, reduced, rank] = [self.body.parts[0], self.body.parts[1], self.body.dims.len()];
        // The innermost dimension varies along work items, everything else of the result along rows of them.
        let cells = self.inner.map_or(1, |inner| self.body.dims[inner] / self.width);
        let last = rank.saturating_sub(1).max(reduced);
        let rows = self.extent(0..outer) * self.extent(reduced..last);
        let grid = self.grid(rows, cells);
        let mut text = grid.row;
        let middle = self.word(self.extent(reduced..last) as i64);
        let _ = writeln!(text, "let outer = row / {middle};\nlet middle = row % {middle};");
        text += &self.unflatten("outer", 0..outer, false);
        text += &self.unflatten("middle", reduced..last, false);
        text += &grid.cell;
        text += &self.unflatten("cell", last..rank, true);
        let n = self.word(self.extent(outer..reduced) as i64);
        let reduction = self.body.reductions[0].clone();
        let _ = writeln!(text, "var acc = {};\nfor (var n = 0u; n < {n}; n++) {{", start(reduction.is_sum));
        text += &self.unflatten("n", outer..reduced, false);
        text += &self.define_all(&[reduction.arg], |_| true);
        let _ = writeln!(
            text,
            "acc = {};\n}}\nlet r0 = acc;",
            fold(reduction.is_sum, "acc", &format!("e{}", reduction.arg))
        );
        let store = self.body.stores[0].expr;
        text += &self.define(store);
        text += &self.store(0);
        (text + grid.end, grid.workgroup, grid.groups)
    }

    pub(super) fn row(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let (rows_end, rank) = (self.body.parts[0], self.body.dims.len());
        let (rows, columns) = (self.extent(0..rows_end), self.extent(rows_end..rank) / self.width);
        let lanes = self.row_lanes(columns);
        let limit = self.target.max_workgroups_per_dimension as usize;
        // Without barriers a workgroup may as well walk over several rows.
        let is_vector = self.is_vector(lanes);
        let rows_each = if is_vector { self.rows_each(rows, columns.div_ceil(lanes as usize)) } else { 1 };
        let stripes = rows.div_ceil(rows_each);
        let y = stripes.div_ceil(limit);
        let (n_rows, n_cells) = (self.word(rows as i64), self.word(columns as i64));
        let mut text = String::from("let lane = lid.x;\nlet stripe = wg.y * nwg.x + wg.x;\n");
        text += &if is_vector {
            let each = self.word(rows_each as i64);
            format!(
                "let end_row = min((stripe + 1u) * {each}, {n_rows});\n\
                 for (var row = stripe * {each}; row < end_row; row++) {{\n"
            )
        } else {
            format!("let row = stripe;\nif (row >= {n_rows}) {{ return; }}\n")
        };
        text += &self.unflatten("row", 0..rows_end, false);

        let in_row = self.body.depends_on(rows_end..rank);
        let level = self.levels();
        let body = self.body;
        let last = level.iter().copied().max().unwrap_or(0);
        for phase in 0..=last {
            let per_row: Vec<ExprId> = (0..body.exprs.len()).filter(|&id| !in_row[id] && level[id] == phase).collect();
            for id in per_row {
                text += &self.define(id);
            }
            let folds: Vec<usize> =
                (0..body.reductions.len()).filter(|&r| level[body.reductions[r].arg] == phase).collect();
            if folds.is_empty() {
                continue;
            }
            for &r in &folds {
                let _ = writeln!(text, "var acc{r} = {};", start(body.reductions[r].is_sum));
            }
            let _ = writeln!(text, "for (var cell = lane; cell < {n_cells}; cell += {lanes}u) {{");
            text += &self.unflatten("cell", rows_end..rank, true);
            let args: Vec<ExprId> = folds.iter().map(|&r| body.reductions[r].arg).collect();
            text += &self.define_all(&args, |id| in_row[id]);
            for &r in &folds {
                let reduction = &body.reductions[r];
                let _ = writeln!(
                    text,
                    "acc{r} = {};",
                    fold(reduction.is_sum, &format!("acc{r}"), &format!("e{}", reduction.arg))
                );
            }
            text += "}\n";
            for &r in &folds {
                let name = if body.reductions[r].is_sum { "sum" } else { "max" };
                let _ = writeln!(text, "let r{r} = wg_{name}(lane, across_{name}(acc{r}));");
            }
        }
        let (once, all): (Vec<usize>, Vec<usize>) = (0..body.stores.len()).partition(|&s| body.stores[s].per_row);
        if !once.is_empty() {
            text += "if (lane == 0u) {\n";
            for index in once {
                text += &self.store(index);
            }
            text += "}\n";
        }
        if !all.is_empty() {
            let _ = writeln!(text, "for (var cell = lane; cell < {n_cells}; cell += {lanes}u) {{");
            text += &self.unflatten("cell", rows_end..rank, true);
            let roots: Vec<ExprId> = all.iter().map(|&s| body.stores[s].expr).collect();
            text += &self.define_all(&roots, |id| in_row[id]);
            for index in all {
                text += &self.store(index);
            }
            text += "}\n";
        }
        text += if is_vector { "}\n" } else { "" };
        (text, [lanes, 1, 1], [stripes.div_ceil(y) as u32, y as u32, 1])
    }

    /// Whether this many lanes are a subgroup for sure.
    pub(super) fn is_vector(&self, lanes: u32) -> bool {
        self.target.class == DeviceClass::Cpu && self.target.fixed_subgroup() == Some(lanes)
    }

    /// Work items that share a row. On a software device a workgroup that is wider than a vector costs more than it brings.
    pub(super) fn row_lanes(&self, cells: usize) -> u32 {
        match self.target.class {
            DeviceClass::Cpu => self.target.fixed_subgroup().unwrap_or(8),
            DeviceClass::Gpu => {
                (cells.next_power_of_two() as u32).clamp(32, 256.min(self.target.max_workgroup_invocations))
            }
        }
    }

    /// How many reductions an expression waits for, one after the other.
    pub(super) fn levels(&self) -> Vec<usize> {
        let mut levels: Vec<usize> = Vec::with_capacity(self.body.exprs.len());
        for expr in &self.body.exprs {
            let level = match &expr.kind {
                ExprKind::Load { .. } | ExprKind::Constant(_) | ExprKind::Index(_) | ExprKind::Product => 0,
                ExprKind::Apply { args, .. } => args.iter().map(|&arg| levels[arg]).max().unwrap_or(0),
                ExprKind::Guarded { value, .. } => levels[*value],
                ExprKind::Reduced(index) => levels[self.body.reductions[*index].arg] + 1,
            };
            levels.push(level);
        }
        levels
    }
}

/// Where a work item finds its row and its cell.
pub(super) struct Grid {
    /// Statements that set `row`.
    row: String,
    /// Statements that set `cell`; what differs from row to row only comes before.
    cell: String,
    /// What ends them.
    end: &'static str,
    workgroup: [u32; 3],
    groups: [u32; 3],
}

/// Steps of a workgroup of a software device, where there is enough to do.
const STRIPE: usize = 64;
/// Workgroups that leave no core of a software device idle.
const LEAST_GROUPS: usize = 32;

/// Neutral element of a reduction.
fn start(is_sum: bool) -> &'static str {
    if is_sum { "F(0.0)" } else { "F(-3.4028234e38)" }
}

fn fold(is_sum: bool, acc: &str, x: &str) -> String {
    if is_sum { format!("{acc} + {x}") } else { format!("max({acc}, {x})") }
}
