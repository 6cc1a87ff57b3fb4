// What the gradients of attention read beside q and k.

@group(0) @binding(3) var<storage, read> v: array<Cell>;
// Log-sum-exp of the scores, and row sums of dy * out; (B, T, H).
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> delta: array<f32>;
@group(0) @binding(6) var<storage, read> dy: array<Cell>;

fn load_v(at: u32) -> Cell {
    return v[at];
}

fn load_dy(at: u32) -> Cell {
    return dy[at];
}
