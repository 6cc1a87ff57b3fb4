// Hooks load_v, store_out: only the log-sum-exp is wanted.

const NEEDS_OUT = false;

fn load_v(at: u32) -> Cell {
    return Cell();
}

fn store_out(at: u32, value: Cell) {}
