//! `state`: a tensor that persists and may be replaced.

leaf! {
    /// A tensor that persists between replays and that an output may replace, such as an optimiser's moment.
    State = "state"
}
