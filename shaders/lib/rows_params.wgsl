// Parameters of the kernels that move whole rows of a matrix. A row is `cells` Cells; one workgroup of 64
// invocations works on one row of the output (gather, scatter_add) or of the source (scatter).

struct Params {
    // Rows of the table that indices point into; an index beyond them (padding is u32::MAX) points nowhere.
    rows: u32,
    // Number of indices.
    count: u32,
    // Cells of one row.
    cells: u32,
    // The word at which the scales of the source begin.
    scales: u32,
    // Width of the grid the workgroups are folded into.
    grid_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> index: array<u32>;
