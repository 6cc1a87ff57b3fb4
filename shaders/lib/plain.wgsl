// Four floats as they are, where wide.wgsl has two 64-bit words.

fn unpacked(cell: vec4<f32>) -> vec4<f32> {
    return cell;
}

fn packed(values: vec4<f32>) -> vec4<f32> {
    return values;
}
