// One number out of one number per work item of a workgroup that is one subgroup, in the device's order, which is always the
// same. A barrier costs a software device more than a short row.

fn wg_sum(lane: u32, x: f32) -> f32 {
    return subgroupAdd(x);
}

fn wg_max(lane: u32, x: f32) -> f32 {
    return subgroupMax(x);
}
