//! A micro-batch as the training graph reads it.

use viral_model::graph::llava::NEWLINE;
use viral_model::image::TiledToken;

use super::bucket::Bucket;
use super::defect::Defect;
use super::sample::{Geometry, NONE, Sample, SampleShape};
use crate::config::RossMasking;

/// One row of a micro-batch.
#[derive(Clone, Debug)]
pub struct Row {
    /// How messages call the sample.
    pub name: String,
    /// The sample.
    pub sample: Sample,
    /// Its picture, present exactly if the sample has visual tokens: whole and, if it is tiled, in tiles. // (tiles, 3, H, W)
    pub pixels: Option<Vec<f32>>,
    /// Whether its picture may take part in the alignment; a cut one does not in any case.
    pub aligned: bool,
    /// Why the row must not teach anything, if it must not: then it has neither targets nor alignment, and the
    /// micro-batch's means are those of the other rows.
    pub defect: Option<Defect>,
}

/// The inputs of the training graph for one micro-batch, and what is told about it.
///
/// B, T, I and S are those of `bucket`; N is the number of visual tokens of a picture. [`NONE`] marks unused places.
/// A "flat row" is `b * T + t`.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The shape.
    pub bucket: Bucket,
    /// Preprocessed pictures of the rows that have visual tokens, in row order; behind them their tiles. // (I+J, 3, H, W)
    pub pixels: Vec<f32>,
    /// Text token ids; [`NONE`] at visual tokens and padding. // (B, T)
    pub token_ids: Vec<u32>,
    /// Row of the projected visual tokens ((I+J)·N of them) that each position holds, or [`NEWLINE`]; [`NONE`] elsewhere.
    /// // (B, T)
    pub visual_index: Vec<u32>,
    /// Tokens of each row without padding. // (B)
    pub lengths: Vec<u32>,
    /// Flat rows of the last `bucket.tail` positions of all samples, whose hidden state predicts a supervised token. // (S)
    pub target_positions: Vec<u32>,
    /// The token that each of them predicts; 0 where there is none. // (S)
    pub target_ids: Vec<u32>,
    /// 1 / supervised tokens for each of them, so that a weighted sum is the micro-batch mean; 0 in padding. // (S)
    pub target_weights: Vec<f32>,
    /// Flat row of each visual token of a whole picture; [`NONE`] where it was cut. // (I·N)
    pub vra_positions: Vec<u32>,
    /// 1 / (contributing pictures · N) for the tokens of a contributing picture, else 0. // (I·N)
    pub vra_weights: Vec<f32>,
    /// The picture of each row; I where it has none. // (B)
    pub pictures: Vec<u32>,
    /// What each row can reconstruct. // (B)
    pub sights: Vec<Sight>,
    /// Flat row of each visual token of a row that has its whole picture; [`NONE`] in others. // (B·N)
    pub sight_positions: Vec<u32>,
    /// Tokens without padding.
    pub tokens: usize,
    /// Supervised tokens. If 0, the language loss of the micro-batch is undefined and must not be used.
    pub supervised: usize,
    /// Pictures that contribute to alignment: they may, and all N visual tokens of the whole picture are left after the cut.
    pub contributing: usize,
    /// Names of the samples, in row order.
    pub samples: Vec<String>,
    /// Defects of rows that were kept but teach nothing.
    pub defects: Vec<Defect>,
}

/// What a row of a micro-batch has to do with the reconstruction of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It sees all of its picture.
    Whole,
    /// It has no picture, or not all of it was left.
    Blind,
    /// It must not teach anything.
    Defective,
}

impl Batch {
    /// Lays rows out. A picture, and each of its tiles, must have `3 * image_side * image_side` values; a missing or
    /// misshapen one counts as black.
    ///
    /// Whole pictures come before all tiles, so that what concerns them alone (the teacher, the alignment) is the front
    /// part of what the vision encoder yields.
    pub fn assemble(rows: &[Row], geometry: Geometry) -> Self {
        let shapes: Vec<SampleShape> = rows.iter().map(|row| row.sample.shape()).collect();
        let bucket = Bucket::of(&shapes);
        let per_picture = geometry.visual_tokens;
        let picture_len = 3 * geometry.image_side * geometry.image_side;
        let teaching = || rows.iter().filter(|row| row.defect.is_none());
        let supervised: usize = teaching().map(|row| row.sample.targets.len()).sum();
        // The whole picture's tokens come before those of its tiles.
        let is_whole = |row: &Row| row.defect.is_none() && per_picture > 0 && row.sample.visual_len >= per_picture;
        let contributing = rows.iter().filter(|row| is_whole(row) && row.aligned).count();
        let target_weight = 1.0 / supervised.max(1) as f32;
        let vra_weight = 1.0 / (contributing * per_picture).max(1) as f32;

        let mut batch = Self {
            bucket,
            pixels: vec![0.0; (bucket.images + bucket.tiles) * picture_len],
            token_ids: vec![NONE; bucket.batch * bucket.tokens],
            visual_index: vec![NONE; bucket.batch * bucket.tokens],
            lengths: shapes.iter().map(|shape| shape.tokens).collect(),
            target_positions: Vec::with_capacity(bucket.targets),
            target_ids: Vec::with_capacity(bucket.targets),
            target_weights: Vec::with_capacity(bucket.targets),
            vra_positions: Vec::with_capacity(bucket.images * per_picture),
            vra_weights: Vec::with_capacity(bucket.images * per_picture),
            pictures: Vec::with_capacity(bucket.batch),
            sights: Vec::with_capacity(bucket.batch),
            sight_positions: Vec::with_capacity(bucket.batch * per_picture),
            tokens: shapes.iter().map(|shape| shape.tokens as usize).sum(),
            supervised,
            contributing,
            samples: rows.iter().map(|row| row.name.clone()).collect(),
            defects: rows.iter().filter_map(|row| row.defect.clone()).collect(),
        };
        let (mut picture, mut tile) = (0, bucket.images);
        for (index, row) in rows.iter().enumerate() {
            let start = index * bucket.tokens;
            let Row { sample, .. } = row;
            batch.token_ids[start..start + sample.ids.len()].copy_from_slice(&sample.ids);
            if row.defect.is_none() {
                for &(position, id) in &sample.targets {
                    let skipped = (index + 1) * (bucket.tokens - bucket.tail);
                    batch.target_positions.push((start + position as usize - skipped) as u32);
                    batch.target_ids.push(id);
                    batch.target_weights.push(target_weight);
                }
            }
            batch.sights.push(match row.defect {
                Some(_) => Sight::Defective,
                None if is_whole(row) => Sight::Whole,
                None => Sight::Blind,
            });
            let first = start + sample.visual_start;
            let position = |offset| if is_whole(row) { (first + offset) as u32 } else { NONE };
            batch.sight_positions.extend((0..per_picture).map(position));
            batch.pictures.push(if sample.visual_len > 0 { picture } else { bucket.images } as u32);
            if sample.visual_len == 0 {
                continue;
            }
            let tokens = sample.layout.map(|layout| layout.tokens(geometry.grid()));
            for offset in 0..sample.visual_len {
                let token = tokens.as_ref().map_or(TiledToken::Patch { tile: 0, patch: offset }, |all| all[offset]);
                batch.visual_index[first + offset] = match token {
                    TiledToken::Patch { tile: 0, patch } => (picture * per_picture + patch) as u32,
                    TiledToken::Patch { tile: of, patch } => ((tile + of - 1) * per_picture + patch) as u32,
                    TiledToken::Newline => NEWLINE,
                };
            }
            for offset in 0..per_picture {
                batch.vra_positions.push(position(offset));
                batch.vra_weights.push(if is_whole(row) && row.aligned { vra_weight } else { 0.0 });
            }
            let tiles = sample.shape().tiles as usize;
            if let Some(pixels) = row.pixels.as_ref().filter(|pixels| pixels.len() == (1 + tiles) * picture_len) {
                let (whole, rest) = pixels.split_at(picture_len);
                batch.pixels[picture * picture_len..][..picture_len].copy_from_slice(whole);
                batch.pixels[tile * picture_len..][..rest.len()].copy_from_slice(rest);
            }
            picture += 1;
            tile += tiles;
        }
        batch.target_positions.resize(bucket.targets, NONE);
        batch.target_ids.resize(bucket.targets, 0);
        batch.target_weights.resize(bucket.targets, 0.0);
        batch
    }

    /// Weight of each row's reconstruction; they add up to 1, or to 0 where nothing is reconstructed. // (B)
    pub fn ross_weights(&self, masking: RossMasking) -> Vec<f32> {
        let count = |sight| self.sights.iter().filter(|&&other| other == sight).count();
        let (whole, blind) = (count(Sight::Whole), count(Sight::Blind));
        let takes_part = match masking {
            RossMasking::Every => whole > 0 && blind == 0,
            RossMasking::Any => whole > 0,
        };
        let weight = if takes_part { 1.0 / (whole + blind) as f32 } else { 0.0 };
        self.sights.iter().map(|&sight| if sight == Sight::Defective { 0.0 } else { weight }).collect()
    }

    /// Share of the positions that hold padding.
    pub fn padding_share(&self) -> f64 {
        1.0 - self.tokens as f64 / (self.bucket.batch * self.bucket.tokens).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::defect::{Place, Rule};
    use viral_model::image::Layout;
    use viral_model::text::{Encoded, IGNORED, IMAGE};

    const GEOMETRY: Geometry = Geometry { visual_tokens: 2, max_length: 8, image_side: 1 };

    fn row(name: &str, ids: &[i64], supervised_from: usize, pixel: Option<f32>) -> Row {
        let labels = ids.iter().enumerate().map(|(i, &id)| if i < supervised_from { IGNORED } else { id }).collect();
        let encoded = Encoded { ids: ids.to_vec(), labels };
        match Sample::splice(&encoded, GEOMETRY, None) {
            Ok(sample) => {
                Row { name: name.into(), sample, pixels: pixel.map(|p| vec![p; 3]), aligned: true, defect: None }
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The places of a padded input that are in use.
    fn used(values: &[u32]) -> Vec<(usize, u32)> {
        values.iter().copied().enumerate().filter(|&(_, value)| value != NONE).collect()
    }

    #[test]
    fn text_and_pictures_share_a_batch() {
        let rows = [
            row("a", &[1, IMAGE, 6, 7], 3, Some(0.5)),
            row("b", &[1, 8, 9], 1, None),
            row("c", &[1, 4, IMAGE, 5], 3, Some(0.25)),
        ];
        let batch = Batch::assemble(&rows, GEOMETRY);
        assert_eq!(batch.bucket, Bucket { batch: 3, tokens: 16, tail: 16, images: 2, tiles: 0, targets: 16 });
        assert_eq!(batch.pixels, [0.5, 0.5, 0.5, 0.25, 0.25, 0.25]);
        assert_eq!(
            used(&batch.token_ids),
            [(0, 1), (3, 6), (4, 7), (16, 1), (17, 8), (18, 9), (32, 1), (33, 4), (36, 5)]
        );
        assert_eq!(used(&batch.visual_index), [(1, 0), (2, 1), (34, 2), (35, 3)]);
        assert_eq!(batch.lengths, [5, 3, 5]);
        assert_eq!(used(&batch.target_positions), [(0, 3), (1, 16), (2, 17), (3, 35)]);
        assert_eq!(batch.target_ids[..5], [7, 8, 9, 5, 0]);
        assert_eq!(batch.target_weights[..5], [0.25, 0.25, 0.25, 0.25, 0.0]);
        assert_eq!(batch.vra_positions, [1, 2, 34, 35]);
        assert_eq!(batch.vra_weights, [0.25; 4]);
        assert_eq!((batch.tokens, batch.supervised, batch.contributing), (13, 4, 2));
        assert_eq!(batch.padding_share(), 1.0 - 13.0 / 48.0);
        assert_eq!(batch.samples, ["a", "b", "c"]);
    }

    /// Targets are counted from the first position of the tail on.
    #[test]
    fn targets_lie_in_the_tail() {
        let geometry = Geometry { visual_tokens: 60, max_length: 80, image_side: 1 };
        let labelled = |ids: &[i64], from: usize| {
            let labels = (0..ids.len()).map(|i| if i < from { IGNORED } else { ids[i] }).collect();
            let sample = Sample::splice(&Encoded { ids: ids.to_vec(), labels }, geometry, None);
            let sample = sample.unwrap_or_else(|error| panic!("{error}"));
            Row { name: String::new(), sample, pixels: None, aligned: true, defect: None }
        };
        // 64 and 63 tokens: positions 32 to 63 are the tail.
        let batch = Batch::assemble(&[labelled(&[1, IMAGE, 5, 6, 7], 3), labelled(&[1, 4, IMAGE, 8], 3)], geometry);
        assert_eq!((batch.bucket.tokens, batch.bucket.tail), (64, 32));
        assert_eq!(used(&batch.target_positions), [(0, 61 - 32), (1, 62 - 32), (2, 32 + 61 - 32)]);
        assert_eq!(batch.target_ids[..3], [6, 7, 8]);
    }

    #[test]
    fn a_cut_picture_is_seen_but_not_aligned() {
        let rows = [row("cut", &[1, 2, 3, 4, 5, 6, 7, IMAGE], 4, Some(1.0)), row("whole", &[IMAGE, 3], 1, Some(2.0))];
        let batch = Batch::assemble(&rows, GEOMETRY);
        assert_eq!(batch.bucket.images, 2);
        assert_eq!(used(&batch.visual_index), [(7, 0), (16, 2), (17, 3)]);
        assert_eq!(batch.vra_positions, [NONE, NONE, 16, 17]);
        assert_eq!(batch.vra_weights, [0.0, 0.0, 0.5, 0.5]);
        assert_eq!(batch.contributing, 1);
    }

    /// Two pictures of two tokens a side, one with a wide canvas and one with a tall one: whole pictures come first.
    #[test]
    fn tiles_come_behind_all_whole_pictures() {
        let geometry = Geometry { visual_tokens: 4, max_length: 64, image_side: 1 };
        let tiled = |grid: [usize; 2], first: f32| {
            let layout = Layout { grid, size: grid };
            let encoded = Encoded { ids: vec![1, IMAGE, 6], labels: vec![IGNORED, IGNORED, 6] };
            let sample = Sample::splice(&encoded, geometry, Some(layout)).unwrap_or_else(|error| panic!("{error}"));
            let pixels = (0..3).flat_map(|tile| [first + tile as f32; 3]).collect();
            Row { name: String::new(), sample, pixels: Some(pixels), aligned: true, defect: None }
        };
        let batch = Batch::assemble(&[tiled([1, 2], 1.0), tiled([2, 1], 4.0)], geometry);
        assert_eq!(batch.bucket, Bucket { batch: 2, tokens: 24, tail: 24, images: 2, tiles: 4, targets: 16 });
        let squares: Vec<f32> = batch.pixels.chunks(3).map(|square| square[0]).collect();
        assert_eq!(squares, [1.0, 4.0, 2.0, 3.0, 5.0, 6.0]);
        // Tokens 0 to 7 are those of the whole pictures, 8 to 11 the first tile's, and so on.
        let n = NEWLINE;
        let wide = [0, 1, 2, 3, 8, 9, 12, 13, n, 10, 11, 14, 15, n];
        let tall = [4, 5, 6, 7, 16, 17, n, 18, 19, n, 20, 21, n, 22, 23, n];
        assert_eq!(batch.visual_index[1..][..wide.len()], wide);
        assert_eq!(batch.visual_index[25..][..tall.len()], tall);
        // The whole picture is what is aligned.
        assert_eq!(batch.vra_positions, [1, 2, 3, 4, 25, 26, 27, 28]);
        assert_eq!((batch.vra_weights, batch.contributing), (vec![0.125; 8], 2));
        assert_eq!(used(&batch.target_positions), [(0, 14), (1, 24 + 16)]);
    }

    #[test]
    fn a_picture_in_tiles_is_aligned_while_its_whole_is_there() {
        let layout = Layout { grid: [1, 2], size: [1, 2] };
        let encoded = Encoded { ids: vec![IMAGE], labels: vec![IGNORED] };
        let contributes = |max_length| {
            let geometry = Geometry { visual_tokens: 4, max_length, image_side: 1 };
            let sample = Sample::splice(&encoded, geometry, Some(layout)).unwrap_or_else(|error| panic!("{error}"));
            let row = Row { name: String::new(), sample, pixels: None, aligned: true, defect: None };
            Batch::assemble(&[row], geometry).contributing
        };
        assert_eq!([3, 4, 9, 14].map(contributes), [0, 1, 1, 1]);
    }

    #[test]
    fn a_picture_that_is_not_aligned_has_no_weight() {
        let mut rows = [row("a", &[IMAGE, 3], 1, Some(1.0)), row("b", &[IMAGE, 3], 1, Some(2.0))];
        rows[0].aligned = false;
        let batch = Batch::assemble(&rows, GEOMETRY);
        assert_eq!(batch.vra_positions, [0, 1, 16, 17]);
        assert_eq!((batch.vra_weights, batch.contributing), (vec![0.0, 0.0, 0.5, 0.5], 1));
    }

    #[test]
    fn a_picture_beyond_the_cut_is_not_run() {
        let batch = Batch::assemble(&[row("a", &[1, 2, 3, 4, 5, 6, 7, 8, IMAGE], 4, None)], GEOMETRY);
        assert_eq!((batch.bucket.images, batch.pixels.len(), batch.vra_positions.len()), (0, 0, 0));
    }

    #[test]
    fn text_only_batches_have_no_visual_inputs() {
        let batch = Batch::assemble(&[row("a", &[1, 2], 1, None)], GEOMETRY);
        assert!(batch.pixels.is_empty() && batch.vra_positions.is_empty() && batch.vra_weights.is_empty());
        assert!(used(&batch.visual_index).is_empty());
    }

    #[test]
    fn reconstruction_is_weighed_by_either_rule() {
        let text = row("text", &[1, 2, 3], 1, None);
        let cut = row("cut", &[1, 2, 3, 4, 5, 6, 7, IMAGE], 4, Some(1.0));
        let whole = |name| row(name, &[1, IMAGE, 6], 2, Some(0.5));
        let mut broken = whole("broken");
        broken.defect = Some(Defect {
            place: Place { file: "x.json".into(), record: 0, id: None, at: None },
            rule: Rule::ImageBroken,
            detail: String::new(),
        });
        let weights = |rows: &[Row]| {
            let batch = Batch::assemble(rows, GEOMETRY);
            [RossMasking::Every, RossMasking::Any].map(|masking| batch.ross_weights(masking))
        };
        assert_eq!(weights(&[whole("a"), whole("b")]), [[0.5; 2]; 2]);
        assert_eq!(weights(&[whole("a"), text.clone()]), [[0.0; 2], [0.5; 2]]);
        assert_eq!(weights(&[cut.clone(), whole("a")]), [[0.0; 2], [0.5; 2]]);
        assert_eq!(weights(&[text.clone(), cut.clone()]), [[0.0; 2]; 2]);
        assert_eq!(weights(&[whole("a"), broken.clone(), whole("b")]), [[0.5, 0.0, 0.5]; 2]);
        assert_eq!(weights(&[broken.clone()]), [[0.0]; 2]);
        let batch = Batch::assemble(&[text, whole("a"), cut], GEOMETRY);
        assert_eq!(batch.pictures, [2, 0, 1]);
        assert_eq!(batch.sight_positions, [NONE, NONE, 17, 18, NONE, NONE]);
    }

    #[test]
    fn nothing_supervised_gives_finite_zero_weights() {
        let batch = Batch::assemble(&[row("a", &[1, 2], 2, None)], GEOMETRY);
        assert_eq!(batch.supervised, 0);
        assert!(batch.target_weights.iter().all(|&weight| weight == 0.0));
        assert!(used(&batch.target_positions).is_empty());
    }

    #[test]
    fn a_defective_row_keeps_its_place_and_teaches_nothing() {
        let mut rows = [row("a", &[1, IMAGE, 6, 7], 2, Some(0.5)), row("b", &[1, IMAGE, 9], 2, Some(0.5))];
        let whole = Batch::assemble(&rows, GEOMETRY);
        let place = Place { file: "x.json".into(), record: 0, id: None, at: None };
        rows[0].defect = Some(Defect { place, rule: Rule::ImageBroken, detail: String::new() });
        rows[0].pixels = None;
        let batch = Batch::assemble(&rows, GEOMETRY);
        assert_eq!(batch.bucket, whole.bucket);
        assert_eq!(batch.pixels, [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
        assert_eq!(used(&batch.target_positions), [(0, 18)]);
        assert_eq!(batch.target_weights[0], 1.0);
        assert_eq!(batch.vra_positions, [NONE, NONE, 17, 18]);
        assert_eq!(batch.vra_weights, [0.0, 0.0, 0.5, 0.5]);
        assert_eq!((batch.supervised, batch.contributing, batch.defects.len()), (1, 1, 1));
    }
}
