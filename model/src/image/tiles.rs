//! LLaVA-NeXT's tiles: a picture of any shape as squares of the tower's size, and the order of their visual tokens.
//!
//! Reference: H. Liu et al., LLaVA-NeXT, 2024, in the form of the library's `LlavaNextImageProcessor` and
//! `LlavaNextModel.pack_image_features`.

use super::{Picture, resize};
use crate::config::Filter;

/// The canvases that pictures may be laid out on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Height and width of each, in pixels.
    pub canvases: Vec<[usize; 2]>,
    /// Side of a tile in pixels; the sides of every canvas are multiples.
    pub side: usize,
}

/// A picture's layout on its canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rows and columns of tiles.
    pub grid: [usize; 2],
    /// Height and width of the picture, as it is.
    pub size: [usize; 2],
}

/// What stands at a position of a picture's visual tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TiledToken {
    /// A patch of a tile. Tile 0 is the whole picture.
    Patch {
        /// Which tile.
        tile: usize,
        /// Which patch of it, in row-major order.
        patch: usize,
    },
    /// The end of a row of patches: the learned vector `image_newline`.
    Newline,
}

impl Tiling {
    /// Tiles of the largest canvas.
    pub fn most_tiles(&self) -> usize {
        let area = (self.side * self.side).max(1);
        self.canvases.iter().map(|[height, width]| height * width / area).max().unwrap_or(0)
    }

    /// The layout of a picture: on the canvas where it is largest, and of several the one with the least margin.
    /// `None` without canvases.
    pub fn layout(&self, width: usize, height: usize) -> Option<Layout> {
        let [w, h] = [width, height].map(|side| side as f64);
        let area = width * height;
        let effective = |&[canvas_height, canvas_width]: &[usize; 2]| {
            let scale = (canvas_width as f64 / w).min(canvas_height as f64 / h);
            (((w * scale) as usize) * ((h * scale) as usize)).min(area)
        };
        let wasted = |canvas: &[usize; 2]| (canvas[0] * canvas[1]).saturating_sub(effective(canvas));
        // Of equal ones the first: `max_by` would take the last, so they are looked at backwards.
        let key = |canvas: &&[usize; 2]| (effective(canvas), std::cmp::Reverse(wasted(canvas)));
        let [canvas_height, canvas_width] = *self.canvases.iter().rev().max_by_key(key)?;
        let side = self.side.max(1);
        Some(Layout { grid: [canvas_height / side, canvas_width / side], size: [height, width] })
    }

    /// The tiles of a picture in row-major order, behind the whole picture, stretched to a square.
    pub fn tiles(&self, picture: &Picture, layout: Layout, filter: Filter) -> Vec<Picture> {
        let [rows, columns] = layout.grid;
        let side = self.side;
        let (width, height) = fitted(picture, columns * side, rows * side);
        let scaled = resize(picture, width, height, filter);
        let (left, top) = ((columns * side - width) / 2, (rows * side - height) / 2);
        let tile = |row: usize, column: usize| {
            let mut tile = Picture::filled(side, side, [0; 3]);
            tile.copy_window(&scaled, [column * side, row * side], [left, top]);
            tile
        };
        let tiles = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let whole = resize(picture, side, side, filter);
        std::iter::once(whole).chain(tiles.map(|(row, column)| tile(row, column))).collect()
    }
}

impl Layout {
    /// Tiles, the whole picture among them.
    pub fn tiles(&self) -> usize {
        1 + self.grid[0] * self.grid[1]
    }

    /// How many visual tokens [`Self::tokens`] lists.
    pub fn token_count(&self, patches: usize) -> usize {
        let n = patches.max(1);
        let [rows, columns] = self.unpadded(n);
        n * n + rows.len() * (columns.len() + 1)
    }

    /// The picture's visual tokens for tiles of `patches` a side: those of the whole picture, then the tiles' as one map
    /// without the patches that only see the canvas, each row ended by a newline.
    pub fn tokens(&self, patches: usize) -> Vec<TiledToken> {
        let n = patches.max(1);
        let whole = (0..n * n).map(|patch| TiledToken::Patch { tile: 0, patch });
        let [rows, columns] = self.unpadded(n);
        let map = rows.flat_map(move |y| {
            let row = columns.clone().map(move |x| TiledToken::Patch {
                tile: 1 + (y / n) * self.grid[1] + x / n,
                patch: (y % n) * n + x % n,
            });
            row.chain(std::iter::once(TiledToken::Newline))
        });
        whole.chain(map).collect()
    }

    /// Rows and columns of the map of patches that belong to the picture.
    fn unpadded(&self, patches: usize) -> [std::ops::Range<usize>; 2] {
        let [rows, columns] = self.grid.map(|tiles| tiles * patches);
        let [height, width] = self.size.map(|side| side as f64);
        let (map_height, map_width) = (rows as f64, columns as f64);
        if width / height > map_width / map_height {
            let inside = truncated(height * (map_width / width));
            let margin = rows.saturating_sub(inside) / 2;
            [margin..rows - margin, 0..columns]
        } else {
            let inside = truncated(width * (map_height / height));
            let margin = columns.saturating_sub(inside) / 2;
            [0..rows, margin..columns - margin]
        }
    }
}

/// Width and height of a picture that is scaled, in its own proportions, to fit into a canvas.
fn fitted(picture: &Picture, canvas_width: usize, canvas_height: usize) -> (usize, usize) {
    let (width, height) = (picture.width() as f64, picture.height() as f64);
    let (by_width, by_height) = (canvas_width as f64 / width, canvas_height as f64 / height);
    if by_width < by_height {
        (canvas_width, ((height * by_width).ceil() as usize).min(canvas_height))
    } else {
        (((width * by_height).ceil() as usize).min(canvas_width), canvas_height)
    }
}

/// The integer part after rounding to seven decimals, as the library does against the noise of the product.
fn truncated(x: f64) -> usize {
    format!("{x:.7}").parse::<f64>().map_or(0, |x| x as usize)
}
