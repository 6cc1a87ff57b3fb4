//! What a view does to positions.

use super::affine::{Affine, Guard, Place, Trouble};
use crate::ir::{Graph, Value};
use crate::ops::Op;

/// For an element of the view `value` at `place`: where it is in the view's argument, and where it exists at all.
pub(crate) fn through_view(
    graph: &Graph,
    value: Value,
    place: &Place,
    dims: &[usize],
) -> Result<(Place, Option<Guard>), Trouble> {
    let node = graph.node(value);
    let shape = &node.ty.shape;
    let source = graph.shape(node.args[0]);
    match &node.op {
        Op::Reshape(_) => Ok((Place::Linear(place.linear(shape, dims.len())), None)),
        Op::StopGradient(_) | Op::Tag(_) | Op::Widen(_) => Ok((place.clone(), None)),
        Op::Permute(op) => {
            let coords = place.coords(shape, dims)?;
            let mut permuted = coords.clone();
            for (coord, &axis) in coords.into_iter().zip(&op.order) {
                permuted[axis] = coord;
            }
            Ok((Place::Coords(permuted), None))
        }
        Op::Expand(_) => {
            let mut coords = place.coords(shape, dims)?;
            for (coord, &extent) in coords.iter_mut().zip(source) {
                if extent == 1 {
                    *coord = Affine::constant(dims.len(), 0);
                }
            }
            Ok((Place::Coords(coords), None))
        }
        Op::Slice(op) => {
            let mut coords = place.coords(shape, dims)?;
            coords[op.axis].offset += op.start as i64;
            Ok((Place::Coords(coords), None))
        }
        Op::Pad(op) => {
            let mut coords = place.coords(shape, dims)?;
            let position = coords[op.axis].clone().shifted(-(op.before as i64));
            coords[op.axis] = position.clone();
            Ok((Place::Coords(coords), Some(Guard { position, extent: source[op.axis] as i64 })))
        }
        other => unreachable!("{other} is not a view"),
    }
}
