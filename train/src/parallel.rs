//! The same for many things, on all cores.

use rayon::prelude::*;

use crate::error::Result;

/// What `each` makes of all items, in their order. Of several errors it is always the first one that counts.
pub(crate) fn map<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    each: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    let items: Vec<T> = items.into_iter().collect();
    let results: Vec<Result<R>> = items.into_par_iter().map(each).collect();
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_keep_their_order_and_the_first_error_counts() {
        let doubled = map(0..100, |i| Ok(2 * i));
        assert_eq!(doubled.unwrap_or_default(), (0..100).map(|i| 2 * i).collect::<Vec<_>>());
        for _ in 0..20 {
            let odd = map(0..100, |i| if i % 40 == 39 { Err(Error::internal("no", i.to_string())) } else { Ok(i) });
            assert!(odd.is_err_and(|error| error.to_string().contains("39")));
        }
    }
}
