//! An 8-bit RGB picture in memory.

/// Pixels of a picture, row by row, three bytes each. Both sides are at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>, // (H, W, 3)
}

impl Picture {
    /// A picture from its bytes (H, W, 3); `None` if a side is zero or the length does not fit.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Option<Self> {
        let expected = width.checked_mul(height)?.checked_mul(3)?;
        (expected > 0 && rgb.len() == expected).then_some(Self { width, height, rgb })
    }

    /// A picture of one colour; sides of zero count as one.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self { width, height, rgb: colour.repeat(width * height) }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Bytes (H, W, 3).
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Bytes (H, W, 3), to be changed.
    pub(super) fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// The picture in the middle of a square of its longer side, on a ground of one colour. The margins differ by at
    /// most one pixel, the first being the smaller. A square stays as it is.
    pub fn padded_to_square(&self, colour: [u8; 3]) -> Self {
        let side = self.width.max(self.height);
        let mut square = Self::filled(side, side, colour);
        let (left, top) = ((side - self.width) / 2, (side - self.height) / 2);
        let rows = square.rgb.chunks_exact_mut(3 * side).skip(top);
        for (to, from) in rows.zip(self.rgb.chunks_exact(3 * self.width)) {
            to[3 * left..3 * (left + self.width)].copy_from_slice(from);
        }
        square
    }

    /// Replaces all pixels that `other` covers, whose upper left corner is at `place`; `start` is that of the window that
    /// this picture is. Both are columns and rows of one canvas.
    pub(super) fn copy_window(&mut self, other: &Self, start: [usize; 2], place: [usize; 2]) {
        let span = |axis: usize, own: usize, theirs: usize| {
            let first = start[axis].max(place[axis]);
            let end = (start[axis] + own).min(place[axis] + theirs);
            (first, end.saturating_sub(first))
        };
        let ((left, columns), (top, rows)) = (span(0, self.width, other.width), span(1, self.height, other.height));
        for y in top..top + rows {
            let from = 3 * ((y - place[1]) * other.width + left - place[0]);
            let to = 3 * ((y - start[1]) * self.width + left - start[0]);
            self.rgb[to..to + 3 * columns].copy_from_slice(&other.rgb[from..from + 3 * columns]);
        }
    }

    /// The middle part of this size. Where the picture is smaller, black is added around it.
    pub fn centre_crop(&self, width: usize, height: usize) -> Self {
        let mut crop = Self::filled(width, height, [0; 3]);
        let columns = overlap(self.width, crop.width);
        let rows = overlap(self.height, crop.height);
        for row in 0..rows.count {
            let from = 3 * ((rows.source + row) * self.width + columns.source);
            let to = 3 * ((rows.target + row) * crop.width + columns.target);
            let bytes = 3 * columns.count;
            crop.rgb[to..to + bytes].copy_from_slice(&self.rgb[from..from + bytes]);
        }
        crop
    }
}

/// Which pixels along one axis a centre crop takes, and where they go.
struct Overlap {
    source: usize,
    target: usize,
    count: usize,
}

/// An odd surplus is cut at the far end, an odd lack is filled at the near end, as the library does.
fn overlap(size: usize, crop: usize) -> Overlap {
    if size >= crop {
        Overlap { source: (size - crop) / 2, target: 0, count: crop }
    } else {
        Overlap { source: 0, target: (crop - size).div_ceil(2), count: size }
    }
}
