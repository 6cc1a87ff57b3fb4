//! One sample as the decoder sees it: text tokens with the visual tokens spliced in, cut to the longest length.

use std::path::Path;

use viral_model::image::Layout;
use viral_model::text::{Encoded, IGNORED, IMAGE};

use super::defect::Rule;
use super::record::Record;

/// Marks a place that holds nothing in the `u32` inputs of the training graph.
pub const NONE: u32 = u32::MAX;

/// How records become tokens and pixels: the model's template, tokenizer and image processor.
///
/// Implementations are pure: the same record gives the same result on every thread.
pub trait Prepare: Send + Sync {
    /// Token ids and labels of a conversation.
    ///
    /// # Errors
    /// The rule that the conversation breaks, with what was found.
    fn encode(&self, record: &Record) -> Result<Encoded, (Rule, String)>;

    /// Preprocessed pixels of a picture, `3 * side * side` values, or of all tiles of its layout. // (tiles, 3, H, W)
    ///
    /// # Errors
    /// The rule that the file breaks, with what was found.
    fn pixels(&self, file: &Path) -> Result<Vec<f32>, (Rule, String)>;

    /// How a picture of this width and height is laid out in tiles, for a model that sees pictures so.
    fn layout(&self, _size: [usize; 2]) -> Option<Layout> {
        None
    }

    /// Whether the record's picture may take part in the alignment.
    fn aligned(&self, _record: &Record) -> bool {
        true
    }
}

/// The sizes that decide a sample's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Visual tokens of a picture; of a tile, where pictures have several.
    pub visual_tokens: usize,
    /// Longest sequence, visual tokens included; what goes beyond is cut off.
    pub max_length: usize,
    /// Side of the square picture that the vision encoder takes, in pixels.
    pub image_side: usize,
}

impl Geometry {
    /// Visual tokens along a side of a tile.
    pub fn grid(&self) -> usize {
        self.visual_tokens.isqrt()
    }
}

/// A sample after splicing and cutting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Text token ids, [`NONE`] at visual tokens.
    pub ids: Vec<u32>,
    /// Position of the first visual token; meaningless if there are none.
    pub visual_start: usize,
    /// Visual tokens that are left; they follow each other.
    pub visual_len: usize,
    /// The picture's tiles and so the order of its visual tokens, where it has several.
    pub layout: Option<Layout>,
    /// Positions whose hidden state predicts a supervised token, with that token's id. The token itself stands one
    /// position later.
    pub targets: Vec<(u32, u32)>,
}

/// The extents of a [`Sample`], from which batch shapes follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleShape {
    /// Tokens, visual ones included.
    pub tokens: u32,
    /// Visual tokens; 0 without a picture, or if the cut has left none.
    pub visual: u32,
    /// Tiles beside the whole picture; 0 if there are no visual tokens.
    pub tiles: u32,
    /// Supervised tokens.
    pub targets: u32,
    /// Positions in front of the first one that predicts a supervised token; all, if none does.
    pub before: u32,
}

impl Sample {
    /// Splices the picture's visual tokens in at [`IMAGE`], `geometry.visual_tokens` or as many as its layout has, and
    /// cuts to `geometry.max_length`.
    ///
    /// As in the reference the ids are cut before the picture is spliced in and the result is cut again, so an image
    /// placeholder beyond the longest length vanishes with its picture.
    ///
    /// # Errors
    /// Ids and labels differ in number, or an id is negative and no placeholder, or there are several placeholders.
    pub fn splice(encoded: &Encoded, geometry: Geometry, layout: Option<Layout>) -> Result<Self, String> {
        if encoded.ids.len() != encoded.labels.len() {
            return Err(format!("{} ids have {} labels", encoded.ids.len(), encoded.labels.len()));
        }
        let longest = geometry.max_length;
        let in_picture = layout.map_or(geometry.visual_tokens, |layout| layout.token_count(geometry.grid()));
        let mut sample = Self { ids: Vec::new(), visual_start: 0, visual_len: 0, layout, targets: Vec::new() };
        for (&id, &label) in encoded.ids.iter().zip(&encoded.labels).take(longest) {
            if id == IMAGE {
                if sample.visual_len > 0 {
                    return Err("several image placeholders".into());
                }
                let position = sample.ids.len();
                sample.visual_start = position;
                sample.visual_len = in_picture.min(longest.saturating_sub(position));
                sample.ids.resize(position + sample.visual_len, NONE);
                continue;
            }
            if sample.ids.len() >= longest {
                break;
            }
            let id = u32::try_from(id).map_err(|_| format!("token id {id}"))?;
            if label != IGNORED
                && let Some(position) = sample.ids.len().checked_sub(1)
            {
                let label = u32::try_from(label).map_err(|_| format!("label {label}"))?;
                sample.targets.push((position as u32, label));
            }
            sample.ids.push(id);
        }
        Ok(sample)
    }

    /// The sample's extents.
    pub fn shape(&self) -> SampleShape {
        SampleShape {
            tokens: self.ids.len() as u32,
            visual: self.visual_len as u32,
            tiles: if self.visual_len > 0 { self.layout.map_or(0, |layout| layout.tiles() as u32 - 1) } else { 0 },
            targets: self.targets.len() as u32,
            before: self.targets.first().map_or(self.ids.len() as u32, |&(position, _)| position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { visual_tokens: 4, max_length: 10, image_side: 2 };

    fn encoded(ids: &[i64], supervised: std::ops::Range<usize>) -> Encoded {
        let labels = (0..ids.len()).map(|i| if supervised.contains(&i) { ids[i] } else { IGNORED }).collect();
        Encoded { ids: ids.to_vec(), labels }
    }

    #[test]
    fn text_is_shifted_by_one() -> Result<(), String> {
        let sample = Sample::splice(&encoded(&[1, 5, 6, 7], 2..4), GEOMETRY, None)?;
        assert_eq!(sample.ids, [1, 5, 6, 7]);
        assert_eq!(sample.targets, [(1, 6), (2, 7)]);
        assert_eq!(sample.shape(), SampleShape { tokens: 4, visual: 0, tiles: 0, targets: 2, before: 1 });
        Ok(())
    }

    #[test]
    fn the_picture_moves_what_follows() -> Result<(), String> {
        let sample = Sample::splice(&encoded(&[1, IMAGE, 6, 7], 2..4), GEOMETRY, None)?;
        assert_eq!(sample.ids, [1, NONE, NONE, NONE, NONE, 6, 7]);
        assert_eq!((sample.visual_start, sample.visual_len), (1, 4));
        // The last visual token predicts the first answer token.
        assert_eq!(sample.targets, [(4, 6), (5, 7)]);
        Ok(())
    }

    #[test]
    fn nothing_predicts_the_first_token() -> Result<(), String> {
        assert_eq!(Sample::splice(&encoded(&[5, 6], 0..2), GEOMETRY, None)?.targets, [(0, 6)]);
        Ok(())
    }

    #[test]
    fn samples_are_cut_before_and_after_the_picture() -> Result<(), String> {
        // The answer is cut behind the picture.
        let sample = Sample::splice(&encoded(&[1, IMAGE, 5, 6, 7, 8, 9, 10], 3..8), GEOMETRY, None)?;
        assert_eq!(sample.ids, [1, NONE, NONE, NONE, NONE, 5, 6, 7, 8, 9]);
        assert_eq!(sample.targets, [(5, 6), (6, 7), (7, 8), (8, 9)]);
        // The cut goes through the picture.
        let mut ids = vec![1; 8];
        ids.extend([IMAGE, 7]);
        let sample = Sample::splice(&encoded(&ids, 9..10), GEOMETRY, None)?;
        assert_eq!((sample.ids.len(), sample.visual_start, sample.visual_len), (10, 8, 2));
        assert!(sample.targets.is_empty());
        // The placeholder itself is beyond the longest length.
        let mut ids = vec![1; 10];
        ids.extend([IMAGE, 7]);
        assert_eq!(Sample::splice(&encoded(&ids, 11..12), GEOMETRY, None)?.visual_len, 0);
        Ok(())
    }

    #[test]
    fn impossible_ids_are_refused() {
        assert!(Sample::splice(&encoded(&[1, IMAGE, IMAGE], 0..0), GEOMETRY, None).is_err());
        assert!(Sample::splice(&encoded(&[1, -3], 0..0), GEOMETRY, None).is_err());
        assert!(Sample::splice(&Encoded { ids: vec![1, 2], labels: vec![1] }, GEOMETRY, None).is_err());
    }
}
