//! Ids and labels against Python's tokenizers, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use viral_model::text::{
    Encoded, IGNORED, IMAGE, IMAGE_TAG, RenderOptions, Template, TextError, Tokenizer, Turn, render,
};

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn byte_level() -> Tokenizer {
    Tokenizer::from_dir(&here("tests/fixtures/byte_level")).unwrap()
}

fn word_piece() -> Tokenizer {
    Tokenizer::from_dir(&here("../tests/fixtures/gqa/llava")).unwrap()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

/// Turns that begin with the human; empty places are left out.
fn alternating<'a>(values: &[Option<&'a str>]) -> Vec<Turn<'a>> {
    let roles = ["human", "gpt"].into_iter().cycle();
    values.iter().zip(roles).filter_map(|(value, from)| value.map(|value| Turn { from, value })).collect()
}

#[test]
fn ids_and_labels_equal_the_rule_in_python() {
    let (byte_level, word_piece) = (byte_level(), word_piece());
    let cases = json(&here("tests/fixtures/tokens.json"));
    assert_eq!(cases.as_array().unwrap().len(), 2 * (3 * 15 + 2));
    for case in cases.as_array().unwrap() {
        let tokenizer = if case["tokenizer"] == "byte_level" { &byte_level } else { &word_piece };
        let template = Template::from_name(case["template"].as_str().unwrap()).unwrap();
        let values: Vec<Option<&str>> = case["turns"].as_array().unwrap().iter().map(Value::as_str).collect();
        let options = RenderOptions::new(template, case["image"].as_bool().unwrap());
        let encoded = tokenizer.encode(&alternating(&values), options).unwrap();
        let name = format!("{} {} {}", case["tokenizer"], case["template"], case["name"]);
        assert_eq!(encoded.ids, integers(&case["ids"]), "{name}");
        let marks: String = encoded.labels.iter().map(|label| if *label == IGNORED { '.' } else { 'x' }).collect();
        assert_eq!(marks, case["labels"].as_str().unwrap(), "{name}");
        for (id, label) in encoded.ids.iter().zip(&encoded.labels) {
            assert!(*label == IGNORED || label == id);
        }
    }
}

/// The records of the PyTorch reference.
#[test]
fn committed_samples_are_tokenised_as_the_reference_does() {
    for (case, data, template) in
        [("gqa", "gqa", Template::VicunaV1), ("mha", "mha", Template::VicunaV1), ("layer0", "gqa", Template::LlavaV1)]
    {
        let fixtures = here("../tests/fixtures");
        let tokenizer = Tokenizer::from_dir(&fixtures.join(data).join("llava")).unwrap();
        let records = json(&fixtures.join(data).join("train.json"));
        let expected = json(&fixtures.join(case).join("expected.json"));
        for (record, sample) in records.as_array().unwrap().iter().zip(expected["samples"].as_array().unwrap()) {
            let conversation = record["conversations"].as_array().unwrap().iter();
            let text = |turn: &'_ Value, key: &str| turn[key].as_str().unwrap().to_string();
            let owned: Vec<_> = conversation.map(|turn| (text(turn, "from"), text(turn, "value"))).collect();
            let turns: Vec<Turn<'_>> = owned.iter().map(|(from, value)| Turn { from, value }).collect();
            let options = RenderOptions::new(template, record["image"].is_string());
            let Encoded { ids, labels } = tokenizer.encode(&turns, options).unwrap();
            assert_eq!(ids, integers(&sample["ids"]), "{case} {}", record["id"]);
            assert_eq!(labels, integers(&sample["labels"]), "{case} {}", record["id"]);
        }
    }
}

/// What is supervised reads as the answers, end tokens included, for every template.
#[test]
fn targets_read_as_the_answers() {
    let tokenizer = byte_level();
    let turns = alternating(&[Some("<image>\nWhy?"), Some("Because."), Some("And?"), Some("So be it.")]);
    let targets = |options: RenderOptions| {
        let encoded = tokenizer.encode(&turns, options).unwrap();
        assert_eq!(
            (encoded.images(), encoded.ids[encoded.ids.iter().position(|id| *id == IMAGE).unwrap()]),
            (1, IMAGE)
        );
        let ids: Vec<u32> =
            encoded.labels.iter().filter(|label| **label != IGNORED).map(|label| *label as u32).collect();
        assert_eq!(ids.len(), encoded.targets());
        tokenizer.decode(&ids).unwrap()
    };
    let vicuna = RenderOptions::new(Template::VicunaV1, true);
    assert_eq!(targets(vicuna), " Because.</s> So be it.</s>");
    assert_eq!(targets(RenderOptions::new(Template::LlavaV1, true)), " Because.</s> So be it.</s>");
    // The reference never supervises the last end token of this template.
    let qwen = RenderOptions::new(Template::Qwen2, true);
    assert_eq!(targets(qwen), " Because.<|im_end|> So be it.");
    let with_eos = RenderOptions { qwen_supervise_final_eos: true, ..qwen };
    assert_eq!(targets(with_eos), " Because.<|im_end|> So be it.<|im_end|>");
    assert_eq!(targets(RenderOptions { qwen_supervise_final_eos: true, ..vicuna }), targets(vicuna));
}

#[test]
fn prompts_are_written_as_specified() {
    let prompt = |template, has_image, values: &[Option<&str>]| {
        render(&alternating(values), RenderOptions::new(template, has_image)).unwrap()
    };
    let vicuna =
        prompt(Template::VicunaV1, true, &[Some("What? <image>"), Some("A cat."), Some("Sure?"), Some("Yes.")]);
    let expected = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, \
                    detailed, and polite answers to the user's questions. USER: <image>\nWhat? ASSISTANT: A cat.</s>\
                    USER: Sure? ASSISTANT: Yes.</s>";
    assert_eq!(vicuna.pieces.join(IMAGE_TAG), expected);
    let answers: Vec<&str> = vicuna.answers.iter().map(|range| &expected[range.clone()]).collect();
    assert_eq!(answers, [" A cat.</s>", " Yes.</s>"]);
    let qwen = prompt(Template::Qwen2, false, &[Some("Who?"), Some("Me."), Some("Now")]);
    let expected = "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, \
                    detailed, and polite answers to the human's questions. USER: Who? ASSISTANT: Me.<|im_end|>USER: Now ";
    assert_eq!(qwen.pieces, [expected]);
    assert_eq!(&expected[qwen.answers[0].clone()], " Me.");
    let plain = prompt(Template::Plain, true, &[Some("Describe <image>"), Some("a cat")]);
    assert_eq!(plain.pieces, ["", "a cat\n"]);
    assert_eq!((plain.answers.len(), plain.answers.first()), (1, Some(&(7..13))));
    assert_eq!(Template::from_name("v1"), Some(Template::VicunaV1));
    assert!(Template::ALL.into_iter().all(|template| Template::from_name(template.name()) == Some(template)));
    assert_eq!(Template::from_name("chatml"), None);
}

#[test]
fn wrong_turns_are_named() {
    let turn = |from, value| Turn { from, value };
    let result = |turns: &[Turn<'_>], template| render(turns, RenderOptions::new(template, true)).unwrap_err();
    let (h, g) = (turn("human", "Hello"), turn("gpt", "Hi"));
    assert_eq!(result(&[], Template::VicunaV1), TextError::Empty);
    let role = result(&[h, turn("system", "x")], Template::VicunaV1).to_string();
    assert_eq!(role, "turn 2 is from `system`, expected `human` or `gpt`");
    let order = result(&[h, g, g], Template::Qwen2).to_string();
    assert_eq!(order, "turn 3 is from `gpt` like the one before it; speakers have to alternate");
    for turns in [&[h, g][..], &[h], &[g, h], &[turn("human", "<image>"), g, h]] {
        let error = result(turns, Template::Plain);
        assert!(matches!(error, TextError::Plain { .. }), "{error}");
    }
    let plain = render(&[turn("human", "<image>"), g], RenderOptions::new(Template::Plain, false)).unwrap_err();
    assert!(plain.to_string().contains("there is no picture in the human turn"), "{plain}");
}

/// Where the token in front comes from: the post-processor, else `tokenizer_config.json`.
#[test]
fn the_token_in_front_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let source = json(&here("../tests/fixtures/gqa/llava/tokenizer.json"));
    let prefix = |post_processor: Value, config: Option<&str>| {
        let mut tokenizer = source.clone();
        tokenizer["post_processor"] = post_processor;
        fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let path = dir.path().join("tokenizer_config.json");
        match config {
            Some(text) => fs::write(&path, text).unwrap(),
            None => drop(fs::remove_file(&path)),
        }
        Tokenizer::from_dir(dir.path()).map(|tokenizer| tokenizer.prefix().to_vec())
    };
    let template = source["post_processor"].clone();
    let bytes =
        || serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    assert_eq!(prefix(template.clone(), None).unwrap(), [1]);
    assert_eq!(prefix(template, Some(r#"{"add_bos_token": false}"#)).unwrap(), [1]);
    assert!(prefix(Value::Null, None).unwrap().is_empty());
    assert_eq!(prefix(Value::Null, Some(r#"{"add_bos_token": true, "bos_token": "<s>"}"#)).unwrap(), [1]);
    assert_eq!(prefix(Value::Null, Some(r#"{"bos_token": {"content": "<s>"}}"#)).unwrap(), [1]);
    assert!(prefix(Value::Null, Some(r#"{"add_bos_token": false, "bos_token": "<s>"}"#)).unwrap().is_empty());
    assert!(prefix(Value::Null, Some(r#"{"bos_token": null}"#)).unwrap().is_empty());
    assert!(prefix(bytes(), Some(r#"{"bos_token": "<s>"}"#)).unwrap().is_empty());
    assert_eq!(prefix(bytes(), Some(r#"{"add_bos_token": true, "bos_token": "<s>"}"#)).unwrap(), [1]);
    let message = prefix(Value::Null, Some(r#"{"bos_token": "<bos>"}"#)).unwrap_err().to_string();
    assert!(message.contains("`bos_token` \"<bos>\" is not in tokenizer.json"), "{message}");
    let message = prefix(Value::Null, Some("{")).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json is not a usable tokenizer file"), "{message}");
}

#[test]
fn settings_of_an_earlier_use_do_not_cut_or_pad() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokenizer = json(&here("../tests/fixtures/gqa/llava/tokenizer.json"));
    tokenizer["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = serde_json::json!({"strategy": {"Fixed": 500}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let turns = alternating(&[Some("Who?"), Some("Me.")]);
    let options = RenderOptions::new(Template::VicunaV1, false);
    let encode = |tokenizer: Tokenizer| tokenizer.encode(&turns, options).unwrap();
    assert_eq!(encode(Tokenizer::from_dir(dir.path()).unwrap()), encode(word_piece()));
}

#[test]
fn unusable_tokenizers_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let message = || Tokenizer::from_dir(dir.path()).map(drop).unwrap_err().to_string();
    assert!(message().contains("tokenizer.json") && message().contains("vocab.json with merges.txt"), "{}", message());
    fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
    assert!(message().contains("tokenizer.model is not a usable tokenizer file"), "{}", message());
    for text in ["", "{}", "[1]", r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}}"#] {
        fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        assert!(message().contains("is not a usable tokenizer file"), "{}", message());
    }
    let tokenizer = word_piece();
    assert_eq!((tokenizer.id_of("</s>"), tokenizer.id_of("nothing")), (Some(2), None));
    assert!(tokenizer.id_bound() > 259 && byte_level().id_bound() > 256);
}

/// Files with bytes changed: a tokenizer or an error, also where the library itself panics.
#[test]
fn damaged_tokenizers_do_not_panic() {
    const BYTES: &[u8] = b"019\"}{a-\\[]nS";
    let dir = tempfile::tempdir().unwrap();
    let turns = alternating(&[Some("<image>\nWhat is é 日 it?"), Some("A cat."), Some("</s>"), Some("yes")]);
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for source in [here("tests/fixtures/byte_level/tokenizer.json"), here("../tests/fixtures/gqa/llava/tokenizer.json")]
    {
        let bytes = fs::read(source).unwrap();
        // Most changes go to the settings in front of the vocabulary.
        let settings = bytes.windows(8).position(|window| window == b"\"vocab\":").unwrap();
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            let end = if random(3) == 0 { damaged.len() } else { settings };
            damaged[random(end)] = BYTES[random(BYTES.len())];
            fs::write(dir.path().join("tokenizer.json"), &damaged).unwrap();
            if let Ok(tokenizer) = Tokenizer::from_dir(dir.path()) {
                let _ = tokenizer.encode(&turns, RenderOptions::new(Template::VicunaV1, true));
            }
        }
    }
}
