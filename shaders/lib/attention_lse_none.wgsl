// Hook store_lse: nobody wants the log-sum-exp.

fn store_lse(at: u32, value: f32) {}
