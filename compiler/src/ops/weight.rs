//! `weight`: a frozen tensor, written once.

leaf! {
    /// A frozen tensor, written once.
    Weight = "weight"
}
