//! Byte-level vocabularies with merges (`vocab.json`, `merges.txt`), as Qwen2's slow tokenizer has them.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use super::TokenizerError;
use super::tokenizer::{contained, read as read_file};

/// How Qwen2 cuts a text into words. Reference: transformers `models/qwen2/tokenization_qwen2.py`.
const WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads vocabulary, merges and added tokens of a directory.
pub(super) fn read(dir: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = dir.join("vocab.json");
    let broken = |problem: String| TokenizerError::Broken { path: path.clone(), problem };
    let vocabulary: HashMap<String, u32> =
        serde_json::from_slice(&read_file(&path)?).map_err(|error| broken(error.to_string()))?;
    let vocabulary: Vocab = vocabulary.into_iter().collect();
    let words = contained(|| Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Isolated, false));
    let words = words.map_err(broken)?;
    let merges = merges(&dir.join("merges.txt"))?;
    let model = contained(|| BPE::builder().vocab_and_merges(vocabulary, merges).build());
    let mut tokenizer = Tokenizer::new(model.map_err(broken)?);
    let bytes = ByteLevel::new(false, false, false);
    tokenizer.with_normalizer(Some(NFC));
    let steps: Vec<PreTokenizerWrapper> = vec![words.into(), bytes.into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer.with_decoder(Some(bytes));
    for (id, text) in super::settings::read(dir)?.added {
        tokenizer.add_special_tokens(&[AddedToken::from(text.clone(), true).normalized(false)]);
        let given = tokenizer.token_to_id(&text);
        if given != Some(id) {
            let problem = format!("added token {text:?} has the id {id}, behind this vocabulary it would be {given:?}");
            return Err(broken(problem));
        }
    }
    Ok(tokenizer)
}

/// Pairs in the order in which they are merged, two words a line.
fn merges(path: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let broken = |problem: String| TokenizerError::Broken { path: path.to_path_buf(), problem };
    let text = String::from_utf8(read_file(path)?).map_err(|error| broken(error.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    let pair = |(index, line): (usize, &str)| match line.split_once(' ') {
        Some((left, right)) => Ok((left.to_string(), right.to_string())),
        None => Err(broken(format!("line {} is not a pair", index + 1))),
    };
    lines.map(pair).collect()
}
