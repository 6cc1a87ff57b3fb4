// Hook store_dv: the gradient of v is wanted. Knob: DV_BINDING.

const NEEDS_DV = true;

@group(0) @binding(DV_BINDING) var<storage, read_write> dv: array<Cell>;

fn store_dv(at: u32, value: Cell) {
    dv[at] = value;
}
