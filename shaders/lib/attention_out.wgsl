// Hooks load_v, store_out: the result of attention is wanted.

const NEEDS_OUT = true;

@group(0) @binding(3) var<storage, read> v: array<Cell>;
@group(0) @binding(4) var<storage, read_write> out: array<Cell>;

fn load_v(at: u32) -> Cell {
    return v[at];
}

fn store_out(at: u32, value: Cell) {
    out[at] = value;
}
