//! `param`: a tensor that gradients may be asked for.

leaf! {
    /// A tensor that gradients may be asked for.
    Param = "param"
}
