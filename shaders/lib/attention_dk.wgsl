// Hook store_dk: the gradient of k is wanted. Knob: DK_BINDING.

const NEEDS_DK = true;

@group(0) @binding(DK_BINDING) var<storage, read_write> dk: array<Cell>;

fn store_dk(at: u32, value: Cell) {
    dk[at] = value;
}
