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

    /// Work items for `(rows, cells)`: the statements that set `row` and `cell`, the workgroup, and the grid.
    pub(super) fn grid(&mut self, rows: usize, cells: usize) -> (String, [u32; 3], [u32; 3]) {
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
        let text =
            format!("let row = {row};\nlet cell = {cell};\nif (row >= {n_rows} || cell >= {n_cells}) {{ return; }}\n");
        (text, [width as u32, height as u32, 1], groups.map(|n| n as u32))
    }

    pub(super) fn map(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let rank = self.body.dims.len();
        let outer = rank.saturating_sub(1);
        let cells = self.inner.map_or(1, |inner| self.body.dims[inner] / self.width);
        let (mut text, workgroup, groups) = self.grid(self.extent(0..outer), cells);
        text += &self.unflatten("row", 0..outer, false);
        text += &self.unflatten("cell", outer..rank, true);
        let roots: Vec<ExprId> = self.body.stores.iter().map(|store| store.expr).collect();
        text += &self.define_all(&roots, |_| true);
        for index in 0..self.body.stores.len() {
            text += &self.store(index);
        }
        (text, workgroup, groups)
    }

    pub(super) fn column(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let [outer, reduced, rank] = [self.body.parts[0], self.body.parts[1], self.body.dims.len()];
        // The innermost dimension varies along work items, everything else of the result along rows of them.
        let cells = self.inner.map_or(1, |inner| self.body.dims[inner] / self.width);
        let last = rank.saturating_sub(1).max(reduced);
        let rows = self.extent(0..outer) * self.extent(reduced..last);
        let (mut text, workgroup, groups) = self.grid(rows, cells);
        let middle = self.word(self.extent(reduced..last) as i64);
        let _ = writeln!(text, "let outer = row / {middle};\nlet middle = row % {middle};");
        text += &self.unflatten("outer", 0..outer, false);
        text += &self.unflatten("middle", reduced..last, false);
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
        (text, workgroup, groups)
    }

    pub(super) fn row(&mut self) -> (String, [u32; 3], [u32; 3]) {
        let (rows_end, rank) = (self.body.parts[0], self.body.dims.len());
        let (rows, columns) = (self.extent(0..rows_end), self.extent(rows_end..rank) / self.width);
        let lanes = self.row_lanes(columns);
        let limit = self.target.max_workgroups_per_dimension as usize;
        let y = rows.div_ceil(limit);
        let (n_rows, n_cells) = (self.word(rows as i64), self.word(columns as i64));
        let mut text =
            format!("let row = wg.y * nwg.x + wg.x;\nif (row >= {n_rows}) {{ return; }}\nlet lane = lid.x;\n");
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
        (text, [lanes, 1, 1], [rows.div_ceil(y) as u32, y as u32, 1])
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

/// Neutral element of a reduction.
fn start(is_sum: bool) -> &'static str {
    if is_sum { "F(0.0)" } else { "F(-3.4028234e38)" }
}

fn fold(is_sum: bool, acc: &str, x: &str) -> String {
    if is_sum { format!("{acc} + {x}") } else { format!("max({acc}, {x})") }
}
