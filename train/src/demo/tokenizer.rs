//! A small tokenizer in the manner of LLaMA's: byte-pair encoding with byte fallback, `▁` for spaces, BOS in front.

use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer, Trainer};

use crate::error::{Error, Result};

/// Unknown, begin and end of sequence, with the ids that LLaMA gives them.
pub(super) const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];
/// Stands for the picture.
pub(super) const IMAGE: &str = "<image>";
/// Fills short rows in other programs; never produced here.
pub(super) const PAD: &str = "<pad>";
/// What LLaMA writes for a space.
const SPACE: char = '▁';

/// A tokenizer trained on `text` with `size` ids at most. The last two are [`IMAGE`] and [`PAD`]. Each of `sentences`,
/// which belong to the text, becomes one piece, if `size` leaves room for it.
///
/// The order of ids is that of LLaMA's vocabulary: specials, the 256 bytes, merged pieces and characters. As with
/// Vicuna, a space goes in front of a text but not in front of what follows a special token.
pub(super) fn train(text: &str, sentences: &[&str], size: usize) -> Result<Tokenizer> {
    build(text, sentences, size)
        .map_err(|error| Error::internal("cannot build the demo's tokenizer", error.to_string()))
}

fn build(text: &str, sentences: &[&str], size: usize) -> tokenizers::Result<Tokenizer> {
    let reserved = SPECIALS.iter().map(|name| (*name).to_owned()).chain((0..=255).map(|b| format!("<0x{b:02X}>")));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size - 2)
        .show_progress(false)
        .special_tokens(reserved.map(|name| AddedToken::from(name, true)).collect())
        .build();
    let spaced = |piece: String| piece.replace(' ', "▁");
    trainer.feed(std::iter::once(text), |text| {
        let words = text.split_whitespace().flat_map(pieces).map(spaced);
        Ok(words.chain(sentences.iter().map(|sentence| spaced(format!(" {sentence}")))).collect())
    })?;
    let mut model = BPE::builder().unk_token(SPECIALS[0].into()).fuse_unk(true).byte_fallback(true).build()?;
    trainer.train(&mut model)?;

    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(Metaspace::new(SPACE, PrependScheme::First, false)));
    let front = Strip::new(' ', 1, 0);
    let decoders = vec![
        Replace::new(SPACE.to_string(), " ")?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
        front.into(),
    ];
    tokenizer.with_decoder(Some(Sequence::new(decoders)));
    let front = TemplateProcessing::builder()
        .try_single("<s> $A")?
        .try_pair("<s> $A <s>:1 $B:1")?
        .special_tokens(vec![(SPECIALS[1], 1)])
        .build()?;
    tokenizer.with_post_processor(Some(front));
    // Already in the vocabulary; this makes them indivisible.
    tokenizer.add_special_tokens(&SPECIALS.map(|name| AddedToken::from(name, true)));
    tokenizer.add_special_tokens(&[IMAGE, PAD].map(|name| AddedToken::from(name, true)));
    Ok(tokenizer)
}

/// The id of each special token, by name.
pub(super) fn special_ids(tokenizer: &Tokenizer) -> HashMap<&'static str, u32> {
    let names = SPECIALS.into_iter().chain([IMAGE, PAD]);
    names.filter_map(|name| Some((name, tokenizer.token_to_id(name)?))).collect()
}

/// A word with the space before it, cut so that no piece joins letters with punctuation or digits.
fn pieces(word: &str) -> Vec<String> {
    let class = |c: char| if c.is_alphabetic() || c == '\'' { 0 } else { 1 + u32::from(c.is_ascii_digit()) };
    let mut pieces: Vec<String> = Vec::new();
    let mut last = None;
    for (index, c) in word.chars().enumerate() {
        let before = if index == 0 { " " } else { "" };
        match pieces.last_mut() {
            Some(piece) if last == Some(class(c)) => piece.push(c),
            _ => pieces.push(format!("{before}{c}")),
        }
        last = Some(class(c));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "A chat between a user and an assistant. USER: What is it? ASSISTANT: It is red. It is a chat.";

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        match tokenizer.encode(text, true) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn ids_are_laid_out_as_in_llama() -> Result<()> {
        let tokenizer = train(TEXT, &[], 300)?;
        assert_eq!(tokenizer.token_to_id("</s>"), Some(2));
        assert_eq!(tokenizer.token_to_id("<0x0A>"), Some(13));
        assert_eq!(tokenizer.get_vocab_size(true), 300);
        assert_eq!((special_ids(&tokenizer)[IMAGE], special_ids(&tokenizer)[PAD]), (298, 299));
        Ok(())
    }

    #[test]
    fn spaces_and_bytes_behave_as_in_vicuna() -> Result<()> {
        let tokenizer = train(TEXT, &[], 330)?;
        let space = tokenizer.token_to_id("▁");
        // A chunk that begins with a line end begins with the bare space piece; the line end is a byte.
        assert_eq!(ids(&tokenizer, "\n").iter().map(|&id| Some(id)).collect::<Vec<_>>(), [Some(1), space, Some(13)]);
        // No space is put in front of what follows a special token.
        let after = ids(&tokenizer, "It</s>USER");
        let user = after.split(|&id| id == 2).next_back().unwrap_or_default();
        assert_eq!(tokenizer.id_to_token(user[0]).map(|piece| piece.starts_with('▁')), Some(false));
        // Whatever is not in the vocabulary falls apart into bytes and comes back whole.
        for text in ["It is red.", "Grün – 漢字 🙂", "a\nb  c"] {
            let ids = ids(&tokenizer, text);
            match tokenizer.decode(&ids, true) {
                Ok(decoded) => assert_eq!(decoded, text),
                Err(error) => panic!("{error}"),
            }
        }
        Ok(())
    }

    #[test]
    fn training_repeats() -> Result<()> {
        let text =
            || train(TEXT, &[], 320)?.to_string(true).map_err(|error| Error::internal("tokenizer", error.to_string()));
        assert_eq!(text()?, text()?);
        Ok(())
    }
}
