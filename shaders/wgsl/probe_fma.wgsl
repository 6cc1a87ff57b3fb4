// out[i] = what six independent chains of multiply-adds end in: a measure of arithmetic, and of nothing else.
//
// Each invocation keeps six vec4 accumulators in registers, enough to hide the latency of a multiply-add, and passes
// eight times over all of them in a round:
//
//     flops = invocations * rounds * 8 * 6 * 4 * 2
//
// Factor and summand are parameters, so that no compiler can fold the chains. With 0.5 and 0.5 all values approach 1.
//
// Bindings: 0 Params, 1 out. Knobs (header): LANES, the size of a workgroup. Workgroup memory: none.

struct Params {
    rounds: u32,
    factor: f32,
    summand: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = vec4<f32>(p.factor);
    let y = vec4<f32>(p.summand);
    var a0 = vec4<f32>(f32(id.x));
    var a1 = a0 + x;
    var a2 = a1 + x;
    var a3 = a2 + x;
    var a4 = a3 + x;
    var a5 = a4 + x;
    for (var round = 0u; round < p.rounds; round++) {
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
        a0 = fma(a0, x, y);
        a1 = fma(a1, x, y);
        a2 = fma(a2, x, y);
        a3 = fma(a3, x, y);
        a4 = fma(a4, x, y);
        a5 = fma(a5, x, y);
    }
    out[id.x] = ((a0 + a1) + (a2 + a3)) + (a4 + a5);
}
