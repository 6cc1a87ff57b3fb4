//! `input`: a tensor that the caller writes before every replay.

leaf! {
    /// A tensor that the caller writes before every replay.
    Input = "input"
}
