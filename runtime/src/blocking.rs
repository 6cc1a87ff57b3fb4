//! The only place where a future is waited for.

use std::future::Future;

/// Runs a future to its end on this thread.
///
/// wgpu's native futures are ready at once or become ready by a call this crate has made before; none needs an executor.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}
