// The forward kernel has no gradient of the result.

fn load_dy(at: u32) -> Cell {
    return Cell();
}
