// Hook store_lse: the logarithm of the sum of the weights of each query is wanted. Knob: LSE_BINDING.

@group(0) @binding(LSE_BINDING) var<storage, read_write> lse: array<f32>;

fn store_lse(at: u32, value: f32) {
    lse[at] = value;
}
