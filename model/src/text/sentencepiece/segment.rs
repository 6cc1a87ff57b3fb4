//! How a normalised text is cut into pieces.
//!
//! Reference: google/sentencepiece `src/bpe_model.cc` (`SampleEncode` without dropout) and `src/unigram_model.cc`
//! (`EncodeOptimized`).

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use super::Vocabulary;
use super::proto::Kind;

/// A piece of the text; `None` is one that the vocabulary does not have.
pub(super) type Segment = (Range<usize>, Option<u32>);

/// A part of the text that later merges may prolong.
struct Symbol {
    range: Range<usize>,
    before: Option<usize>,
    after: Option<usize>,
    /// A piece that the user defined stays as it is.
    frozen: bool,
}

/// Two neighbours that are a piece together. The best is the one of the highest score, of those the leftmost.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    length: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| Reverse(self.left).cmp(&Reverse(other.left)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// Byte-pair encoding: starting from characters, the best pair of neighbours is merged until there is none.
pub(super) fn bpe(text: &str, vocabulary: &Vocabulary) -> Vec<Segment> {
    let mut symbols = characters(text, vocabulary);
    let (mut agenda, mut parts) = (BinaryHeap::new(), HashMap::new());
    for right in 1..symbols.len() {
        propose(text, vocabulary, &symbols, (right - 1, right), &mut agenda, &mut parts);
    }
    while let Some(Pair { left, right, length, .. }) = agenda.pop() {
        let (first, second) = (symbols[left].range.clone(), symbols[right].range.clone());
        // One of the two has been merged with another one since.
        if first.is_empty() || second.is_empty() || first.len() + second.len() != length {
            continue;
        }
        let after = symbols[right].after;
        symbols[left].range.end = second.end;
        symbols[left].after = after;
        symbols[right].range = second.end..second.end;
        if let Some(after) = after {
            symbols[after].before = Some(left);
        }
        if let Some(before) = symbols[left].before {
            propose(text, vocabulary, &symbols, (before, left), &mut agenda, &mut parts);
        }
        if let Some(after) = after {
            propose(text, vocabulary, &symbols, (left, after), &mut agenda, &mut parts);
        }
    }
    let mut segments = Vec::new();
    let mut next = (!symbols.is_empty()).then_some(0);
    while let Some(index) = next {
        resegment(text, symbols[index].range.clone(), vocabulary, &parts, &mut segments);
        next = symbols[index].after;
    }
    segments
}

/// The text's characters, and where the user defined pieces, those.
fn characters(text: &str, vocabulary: &Vocabulary) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let defined = vocabulary.user_defined_prefix(&text[at..]);
        let end = at + defined.unwrap_or(first.len_utf8());
        let index = symbols.len();
        let after = (end < text.len()).then_some(index + 1);
        symbols.push(Symbol { range: at..end, before: index.checked_sub(1), after, frozen: defined.is_some() });
        at = end;
    }
    symbols
}

/// Adds a pair to the agenda, if it is a piece. How pieces that must not be used came about is noted in `parts`.
fn propose<'t>(
    text: &'t str,
    vocabulary: &Vocabulary,
    symbols: &[Symbol],
    (left, right): (usize, usize),
    agenda: &mut BinaryHeap<Pair>,
    parts: &mut HashMap<&'t str, usize>,
) {
    let (first, second) = (&symbols[left], &symbols[right]);
    if first.frozen || second.frozen {
        return;
    }
    let merged = &text[first.range.start..second.range.end];
    let Some(id) = vocabulary.mergeable(merged) else { return };
    let piece = vocabulary.piece(id);
    agenda.push(Pair { score: piece.score, left, right, length: merged.len() });
    if piece.kind == Kind::Unused {
        parts.insert(merged, first.range.len());
    }
}

/// Takes a piece that must not be used apart into what it was merged from.
fn resegment(
    text: &str,
    range: Range<usize>,
    vocabulary: &Vocabulary,
    parts: &HashMap<&str, usize>,
    segments: &mut Vec<Segment>,
) {
    let mut pending = vec![range];
    while let Some(range) = pending.pop() {
        let piece = &text[range.clone()];
        let id = vocabulary.id(piece);
        let is_unused = id.is_some_and(|id| vocabulary.piece(id).kind == Kind::Unused);
        match parts.get(piece).filter(|_| is_unused) {
            Some(first) => {
                let middle = range.start + first;
                pending.extend([middle..range.end, range.start..middle]);
            }
            None => segments.push((range, id)),
        }
    }
}

/// Unigram model: the segmentation with the largest sum of scores.
pub(super) fn unigram(text: &str, vocabulary: &Vocabulary) -> Vec<Segment> {
    /// What a character without a piece costs more than the worst piece.
    const UNKNOWN_PENALTY: f32 = 10.0;

    /// Above every score, so that pieces of the user are chosen; measured with version 0.2.3, down to the last bit.
    const USER_DEFINED: f32 = 0.1;

    /// The best way to a position: its score, where its last piece begins, and which one that is.
    #[derive(Clone, Copy)]
    struct Best {
        score: f32,
        from: Option<usize>,
        id: Option<u32>,
    }

    let unknown = vocabulary.lowest - UNKNOWN_PENALTY;
    let mut best = vec![Best { score: 0.0, from: None, id: None }; text.len() + 1];
    for (start, first) in text.char_indices() {
        let here = best[start].score;
        // The sums are rounded at every piece, which decides between segmentations of equal score.
        let mut reach = |end: usize, score: f32, id: Option<u32>| {
            let (target, score) = (&mut best[end], score + here);
            if target.from.is_none() || score > target.score {
                *target = Best { score, from: Some(start), id };
            }
        };
        let mut has_single = false;
        for length in vocabulary.lengths(&text[start..]) {
            let Some(id) = vocabulary.mergeable(&text[start..start + length]) else { continue };
            let piece = vocabulary.piece(id);
            let score = match piece.kind {
                Kind::Unused => continue,
                Kind::UserDefined => USER_DEFINED,
                _ => piece.score,
            };
            reach(start + length, score, Some(id));
            has_single |= length == first.len_utf8();
        }
        if !has_single {
            reach(start + first.len_utf8(), unknown, None);
        }
    }
    let mut segments = Vec::new();
    let mut end = text.len();
    while let Some(start) = best[end].from {
        segments.push((start..end, best[end].id));
        end = start;
    }
    segments.reverse();
    segments
}
