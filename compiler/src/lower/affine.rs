//! Index arithmetic: how the position of an element depends on the loop indices of a kernel.

/// A loop nest's extents, outermost first. None is 1.
pub(crate) type Dims = Vec<usize>;

/// `offset + sum of terms[d] · index[d]` over the dimensions of a loop nest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Affine {
    /// One factor a dimension.
    pub(crate) terms: Vec<i64>,
    /// The value at the origin.
    pub(crate) offset: i64,
}

/// `0 <= position < extent`: where an element exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Guard {
    /// What is compared.
    pub(crate) position: Affine,
    /// First position behind the elements.
    pub(crate) extent: i64,
}

/// Why an index cannot be expressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It can, once dimension `dim` is split into an outer part and an inner one of this extent.
    Split { dim: usize, inner: usize },
    /// It cannot: an element's position is not affine in any refinement of the loop nest.
    Opaque,
}

/// Where an element of a tensor is, for each point of a loop nest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Per axis.
    Coords(Vec<Affine>),
    /// In row-major order.
    Linear(Affine),
}

impl Affine {
    pub(crate) fn constant(rank: usize, offset: i64) -> Self {
        Self { terms: vec![0; rank], offset }
    }

    pub(crate) fn dim(rank: usize, dim: usize, factor: i64) -> Self {
        let mut affine = Self::constant(rank, 0);
        affine.terms[dim] = factor;
        affine
    }

    pub(crate) fn add_scaled(&mut self, other: &Affine, factor: i64) {
        for (term, o) in self.terms.iter_mut().zip(&other.terms) {
            *term += o * factor;
        }
        self.offset += other.offset * factor;
    }

    pub(crate) fn shifted(mut self, by: i64) -> Self {
        self.offset += by;
        self
    }

    /// Smallest and largest value over the loop nest.
    pub(crate) fn range(&self, dims: &[usize]) -> (i64, i64) {
        let (mut low, mut high) = (self.offset, self.offset);
        for (&term, &extent) in self.terms.iter().zip(dims) {
            let end = term * (extent as i64 - 1);
            low += end.min(0);
            high += end.max(0);
        }
        (low, high)
    }

    /// Row-major position over the dimensions `range`, ignoring the others.
    pub(crate) fn row_major(dims: &[usize], range: std::ops::Range<usize>) -> Self {
        let mut affine = Self::constant(dims.len(), 0);
        let mut stride = 1;
        for dim in range.rev() {
            affine.terms[dim] = stride;
            stride *= dims[dim] as i64;
        }
        affine
    }
}

impl Place {
    /// The element with the same row-major position as the point of the loop nest, over the dimensions `range`.
    pub(crate) fn identity(dims: &[usize], range: std::ops::Range<usize>) -> Self {
        Place::Linear(Affine::row_major(dims, range))
    }

    /// Row-major position in a tensor of this shape.
    pub(crate) fn linear(&self, shape: &[usize], rank: usize) -> Affine {
        match self {
            Place::Linear(affine) => affine.clone(),
            Place::Coords(coords) => {
                let mut linear = Affine::constant(rank, 0);
                for (coord, stride) in coords.iter().zip(crate::types::row_major_strides(shape)) {
                    linear.add_scaled(coord, stride as i64);
                }
                linear
            }
        }
    }

    /// Position along each axis of a tensor of this shape.
    pub(crate) fn coords(&self, shape: &[usize], dims: &[usize]) -> Result<Vec<Affine>, Trouble> {
        match self {
            Place::Coords(coords) => Ok(coords.clone()),
            Place::Linear(linear) => delinearise(linear, shape, dims),
        }
    }
}

/// Splits a row-major position into one position an axis.
///
/// Every term of the sum must belong to one axis, and no axis may carry into the next.
fn delinearise(linear: &Affine, shape: &[usize], dims: &[usize]) -> Result<Vec<Affine>, Trouble> {
    let strides = crate::types::row_major_strides(shape);
    let axes: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] != 1).collect();
    let mut coords = vec![Affine::constant(dims.len(), 0); shape.len()];
    let mut rest = linear.offset;
    if rest < 0 {
        return Err(Trouble::Opaque);
    }
    for &axis in &axes {
        coords[axis].offset = rest / strides[axis] as i64;
        rest %= strides[axis] as i64;
    }
    for (dim, &term) in linear.terms.iter().enumerate().filter(|(_, term)| **term != 0) {
        let owner = axes.iter().copied().find(|&axis| term >= strides[axis] as i64);
        let owner = owner.filter(|&axis| term % strides[axis] as i64 == 0).ok_or(Trouble::Opaque)?;
        let factor = term / strides[owner] as i64;
        coords[owner].terms[dim] += factor;
        if factor * (dims[dim] as i64 - 1) >= shape[owner] as i64 {
            // The dimension runs over the end of the axis: it covers this axis and a part of the next.
            let inner = shape[owner] as i64 / factor;
            let splits = shape[owner] as i64 % factor == 0 && inner > 1 && dims[dim] as i64 % inner == 0;
            return Err(if splits { Trouble::Split { dim, inner: inner as usize } } else { Trouble::Opaque });
        }
    }
    let carries = axes.iter().any(|&axis| coords[axis].range(dims).1 >= shape[axis] as i64);
    if carries { Err(Trouble::Opaque) } else { Ok(coords) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_loop_asks_to_be_split_at_the_axis() {
        let trouble = Place::identity(&[12], 0..1).coords(&[3, 4], &[12]);
        assert_eq!(trouble, Err(Trouble::Split { dim: 0, inner: 4 }));
        let coords = Place::identity(&[3, 4], 0..2).coords(&[3, 4], &[3, 4]).unwrap();
        assert_eq!(coords, vec![Affine::dim(2, 0, 1), Affine::dim(2, 1, 1)]);
    }

    #[test]
    fn axes_that_do_not_divide_are_opaque() {
        assert_eq!(Place::identity(&[2, 3], 0..2).coords(&[3, 2], &[2, 3]), Err(Trouble::Opaque));
    }
}
