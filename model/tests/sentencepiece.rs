//! SentencePiece models against the original, and byte-level vocabularies with merges. `fixtures/make_sentencepiece.py`
//! wrote the models and the answers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use viral_model::text::{Prompt, Tokenizer};

const STRINGS: u64 = 5000;
const CHUNK: u64 = 250;
const SPECIAL: [&str; 4] = ["</s>", "<s>", "<unk>", "<image>"];
const SPACES: [&str; 7] = [" ", "  ", "\n", "\t", "\u{a0}", "\u{3000}", "   "];
const RANGES: [(u32, u32); 8] = [
    (0x20, 0x7F),
    (0xA0, 0x250),
    (0x370, 0x400),
    (0x4E00, 0x4F00),
    (0xAC00, 0xAD00),
    (0x1F600, 0x1F650),
    (0x2580, 0x25A0),
    (0x300, 0x310),
];
const NORMALIZED: [&str; 9] = ["Ａ", "ﬁ", "e\u{301}", "\u{e9}", "\t", "\n", "\u{3000}", "½", "\u{ad}"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// SplitMix64, as in the script.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Words, runs, spaces, letters of every script, and special tokens or what a model normalises.
fn text(seed: u64, words: &[String], with_special: bool) -> String {
    let (mut random, mut text) = (Random(seed), String::new());
    for _ in 0..random.below(12) {
        match random.below(10) {
            0..4 => text += &format!(" {}", words[random.below(words.len())]),
            4 => text += &words[random.below(words.len())],
            5 => {
                let letter = ["a", "b", "e", "=", "-", ".", " "][random.below(7)];
                text += &letter.repeat(1 + random.below(9));
            }
            6 => (0..random.below(12)).for_each(|_| text += ["a", "e", "=", " ", "t"][random.below(5)]),
            7 => text += SPACES[random.below(SPACES.len())],
            8 => {
                let (first, end) = RANGES[random.below(RANGES.len())];
                for _ in 0..1 + random.below(4) {
                    text.push(char::from_u32(first + random.below((end - first) as usize) as u32).unwrap());
                }
            }
            _ if with_special => text += SPECIAL[random.below(SPECIAL.len())],
            _ => text += NORMALIZED[random.below(NORMALIZED.len())],
        }
    }
    text
}

fn ids(tokenizer: &Tokenizer, text: String) -> Vec<u32> {
    let prompt = Prompt { pieces: vec![text], answers: Vec::new() };
    let ids = tokenizer.encode_prompt(&prompt).unwrap().ids;
    ids[tokenizer.prefix().len()..].iter().map(|id| *id as u32).collect()
}

/// Compares the ids of all strings with those that the script found, as hashes.
#[track_caller]
fn assert_equal(tokenizer: &Tokenizer, name: &str, with_special: bool) {
    let answers = json(&fixture("sentencepiece/ids.json"));
    let words: Vec<String> = serde_json::from_value(answers["words"].clone()).unwrap();
    let expected = answers[name].as_array().unwrap();
    assert_eq!(expected.len() as u64, STRINGS / CHUNK);
    for (chunk, expected) in expected.iter().enumerate() {
        let (mut hash, first) = (Sha256::new(), chunk as u64 * CHUNK);
        for seed in first..first + CHUNK {
            let mut ids = ids(tokenizer, text(seed, &words, with_special));
            ids.push(u32::MAX);
            hash.update(ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
        }
        let found: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected.as_str().unwrap(), "{name}: strings from {first}");
    }
}

/// A copy of the LLaMA-like model with other settings.
fn with_settings(settings: Value) -> (tempfile::TempDir, Result<Tokenizer, String>) {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture("sentencepiece/llama/tokenizer.model"), dir.path().join("tokenizer.model")).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).map_err(|error| error.to_string());
    (dir, tokenizer)
}

/// The models alone, whose special tokens are text like any other.
#[test]
fn five_thousand_strings_have_the_ids_of_the_original() {
    for name in ["llama", "unigram", "suffix"] {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("sentencepiece/{name}/tokenizer.model");
        fs::copy(fixture(&path), dir.path().join("tokenizer.model")).unwrap();
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        assert_equal(&tokenizer, name, false);
    }
}

#[test]
fn special_tokens_are_set_apart_as_in_the_library() {
    let tokenizer = Tokenizer::from_dir(&fixture("sentencepiece/llama")).unwrap();
    assert_eq!(tokenizer.prefix(), [1]);
    assert_eq!(tokenizer.id_of("<image>"), Some(tokenizer.id_bound() as u32 - 1));
    assert_equal(&tokenizer, "slow", true);
    let mut settings = json(&fixture("sentencepiece/llama/tokenizer_config.json"));
    settings["legacy"] = json!(true);
    assert_equal(&with_settings(settings.clone()).1.unwrap(), "slow, legacy", true);
    // Which is what a file without the key means.
    settings.as_object_mut().unwrap().remove("legacy");
    assert_equal(&with_settings(settings).1.unwrap(), "slow, legacy", true);
}

#[test]
fn text_comes_back_from_its_ids() {
    let tokenizer = Tokenizer::from_dir(&fixture("sentencepiece/llama")).unwrap();
    let answers = json(&fixture("sentencepiece/ids.json"));
    let words: Vec<String> = serde_json::from_value(answers["words"].clone()).unwrap();
    let mut compared = 0;
    for seed in 0..500 {
        let text = text(seed, &words, false);
        // The visible space is a space, and where a text begins with spaces, one of them may be the model's own.
        if text.contains('\u{2581}') || text.starts_with([' ', '<']) {
            continue;
        }
        assert_eq!(tokenizer.decode(&ids(&tokenizer, text.clone())).unwrap(), text);
        compared += 1;
    }
    assert!(compared > 100);
    assert_eq!(tokenizer.decode(&[1, 2]).unwrap(), "<s></s>");
}

#[test]
fn settings_that_cannot_be_are_named() {
    let (_dir, error) = with_settings(json!({ "bos_token": "<begin>" }));
    assert!(error.map(drop).unwrap_err().contains("`bos_token` \"<begin>\""));
    let (_dir, error) = with_settings(json!({ "eos_token": { "content": "</s>", "rstrip": true } }));
    assert!(error.map(drop).unwrap_err().contains("`rstrip` of token"));
    let (_dir, tokenizer) = with_settings(json!({ "add_bos_token": false }));
    assert!(tokenizer.unwrap().prefix().is_empty());
}

/// Vocabulary and merges of the byte-level tokenizer in two files give what its `tokenizer.json` gives.
#[test]
fn byte_level_vocabularies_have_the_ids_of_the_library() {
    let whole = fixture("byte_level");
    assert_equal(&Tokenizer::from_dir(&whole).unwrap(), "byte_level", false);

    let dir = tempfile::tempdir().unwrap();
    let root = json(&whole.join("tokenizer.json"));
    let pair = |merge: &Value| match merge {
        Value::String(pair) => pair.clone(),
        other => format!("{} {}", other[0].as_str().unwrap(), other[1].as_str().unwrap()),
    };
    let merges: Vec<String> = root["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
    let added: serde_json::Map<String, Value> = root["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (token["id"].to_string(), json!({ "content": token["content"], "special": true })))
        .collect();
    fs::write(dir.path().join("vocab.json"), root["model"]["vocab"].to_string()).unwrap();
    fs::write(dir.path().join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    let settings = json!({ "add_bos_token": false, "bos_token": null, "added_tokens_decoder": added });
    fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_equal(&tokenizer, "byte_level", false);
    assert_eq!(tokenizer.id_of("<|im_end|>"), Tokenizer::from_dir(&whole).unwrap().id_of("<|im_end|>"));
    assert_eq!(tokenizer.decode(&ids(&tokenizer, "Über 日本 😀".into())).unwrap(), "Über 日本 😀");

    fs::write(dir.path().join("merges.txt"), "#version: 0.2\nab\n").unwrap();
    let error = Tokenizer::from_dir(dir.path()).map(drop).unwrap_err().to_string();
    assert!(error.contains("merges.txt") && error.contains("line 2 is not a pair"), "{error}");
}

/// Cut or changed at any byte, a model is an error or another model.
#[test]
fn damaged_models_do_not_panic() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["llama", "unigram"] {
        let bytes = fs::read(fixture(&format!("sentencepiece/{name}/tokenizer.model"))).unwrap();
        let open = |bytes: &[u8]| {
            fs::write(dir.path().join("tokenizer.model"), bytes).unwrap();
            Tokenizer::from_dir(dir.path())
        };
        for at in (0..bytes.len()).step_by(37) {
            if let Err(error) = open(&bytes[..at]) {
                assert!(error.to_string().contains("tokenizer.model"), "{error}");
            }
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            if let Ok(tokenizer) = open(&damaged) {
                ids(&tokenizer, "a <sep> ½ é text".into());
            }
        }
    }
}
