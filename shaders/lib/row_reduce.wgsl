// One number out of one number per work item of a workgroup of ROW_LANES, a power of two, in a fixed order.

var<workgroup> wg_scratch: array<f32, ROW_LANES>;

fn wg_sum(lane: u32, x: f32) -> f32 {
    wg_scratch[lane] = x;
    workgroupBarrier();
    for (var half = ROW_LANES / 2u; half > 0u; half >>= 1u) {
        if (lane < half) {
            wg_scratch[lane] += wg_scratch[lane + half];
        }
        workgroupBarrier();
    }
    let total = wg_scratch[0];
    workgroupBarrier();
    return total;
}

fn wg_max(lane: u32, x: f32) -> f32 {
    wg_scratch[lane] = x;
    workgroupBarrier();
    for (var half = ROW_LANES / 2u; half > 0u; half >>= 1u) {
        if (lane < half) {
            wg_scratch[lane] = max(wg_scratch[lane], wg_scratch[lane + half]);
        }
        workgroupBarrier();
    }
    let largest = wg_scratch[0];
    workgroupBarrier();
    return largest;
}
