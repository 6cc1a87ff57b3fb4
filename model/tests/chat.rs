//! Chat templates against the library's, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use viral_model::text::{ChatTemplate, IGNORED, IMAGE, IMAGE_TAG, Tokenizer, TokenizerError, Turn};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn turns(values: &Value) -> Vec<Turn<'_>> {
    let values = values.as_array().unwrap().iter().map(|value| value.as_str().unwrap());
    values.zip(["human", "gpt"].into_iter().cycle()).map(|(value, from)| Turn { from, value }).collect()
}

fn template(source: &str, tokens: &[(&str, &str)]) -> Result<ChatTemplate, TokenizerError> {
    let tokens = tokens.iter().map(|(name, token)| (name.to_string(), token.to_string())).collect();
    ChatTemplate::new(Path::new("chat_template.jinja"), source, tokens)
}

#[test]
fn texts_answers_and_ids_are_those_of_the_library() {
    let tokenizer = Tokenizer::from_dir(&fixtures().join("gqa/llava")).unwrap();
    let image = tokenizer.id_of(IMAGE_TAG).map(i64::from).unwrap();
    let templates: Value = serde_json::from_slice(&fs::read(fixtures().join("chat/cases.json")).unwrap()).unwrap();
    let mut cases = 0;
    for (name, expected) in templates.as_object().unwrap() {
        let tokens: BTreeMap<String, String> = serde_json::from_value(expected["tokens"].clone()).unwrap();
        let source = expected["template"].as_str().unwrap();
        let template = ChatTemplate::new(Path::new(name), source, tokens).unwrap();
        for case in expected["cases"].as_array().unwrap() {
            let (turns, has_image) = (turns(&case["turns"]), case["image"].as_bool().unwrap());
            let place = format!("{name}: {turns:?}");
            let prompt = template.render(&turns, has_image).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(prompt.pieces.join(IMAGE_TAG), case["text"].as_str().unwrap(), "{place}");
            let answers: Vec<_> = prompt.answers.iter().map(|answer| json!([answer.start, answer.end])).collect();
            assert_eq!(json!(answers), case["answers"], "{place}");

            let encoded = tokenizer.encode_chat(&template, &turns, has_image).unwrap();
            let ids = encoded.ids.iter().map(|&id| if id == IMAGE { image } else { id });
            assert_eq!(json!(ids.collect::<Vec<_>>()), case["ids"], "{place}");
            let marks: String = encoded.labels.iter().map(|label| if *label == IGNORED { '.' } else { 'x' }).collect();
            assert_eq!(marks, case["labels"].as_str().unwrap(), "{place}");
            assert_eq!(encoded.images(), usize::from(has_image), "{place}");
            cases += 1;
        }
        assert_eq!(template.ends_answers(), name != "llava", "{name}");
    }
    assert_eq!(cases, 5 * 5);
}

/// The places that a template may be in, the first one first.
#[test]
fn templates_are_found_where_models_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    let body =
        |mark: &str| format!("{{% for m in messages %}}{mark}{{{{ m.content }}}}{{{{ eos_token }}}}{{% endfor %}}");
    let text = || {
        let template = ChatTemplate::from_dir(dir.path()).unwrap();
        template.render(&turns(&json!(["a", "b"])), false).unwrap().pieces.concat()
    };
    let error = ChatTemplate::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("chat_template") && error.contains("data.template"), "{error}");
    let list = json!([{"name": "tool_use", "template": "x"}, {"name": "default", "template": body("list ")}]);
    write("tokenizer_config.json", &json!({"chat_template": list, "eos_token": {"content": "$"}}).to_string());
    assert_eq!(text(), "list a$list b$");
    write("chat_template.json", &json!({"chat_template": body("json ")}).to_string());
    assert_eq!(text(), "json a$json b$");
    write("chat_template.jinja", &body("file "));
    assert_eq!(text(), "file a$file b$");
}

/// Whatever a template does, it ends soon with an error that names the file.
#[test]
fn hostile_templates_end_with_an_error() {
    let nested = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    let cases: Vec<(String, &str)> = vec![
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".into(), "no end"),
        ("{% for i in range(9999999999) %}x{% endfor %}".into(), "too many"),
        (
            "{% set ns = namespace(s='xy') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}".into(),
            "no end",
        ),
        ("{{ 'x' * 999999999 }}".into(), "no end"),
        ("{% for i in range(99999) %}{{ 'y' * 9999 }}{% endfor %}".into(), "no end"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(), "recursion"),
        (format!("{{{{ {nested} }}}}"), "recursion"),
        ("{% include 'secrets' %}".into(), "include"),
        ("{{ ''.__class__.__mro__ }}".into(), "undefined"),
        ("{{ raise_exception('never') }}".into(), "never"),
        ("{% for m in messages %}".into(), "unexpected"),
        ("{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}".into(), "nested"),
        ("{{ messages | length }}".into(), "told from the rest"),
        ("x".repeat(2 << 20), "bytes"),
    ];
    for (source, expected) in cases {
        let start = std::time::Instant::now();
        let error = template(&source, &[]).expect_err(&source[..source.len().min(80)]).to_string();
        assert!(error.contains(expected) && error.contains("chat_template.jinja"), "{error}");
        assert!(start.elapsed().as_secs_f64() < 1.0, "{error}");
    }
}

#[test]
fn conversations_that_a_template_cannot_take_are_refused() {
    let picky = "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('a bad word') }}{% endif %}{{ m.content }}|{% endfor %}";
    let template = template(picky, &[("eos_token", "|")]).unwrap();
    let refuse = |values: Value, has_image| template.render(&turns(&values), has_image).unwrap_err().to_string();
    assert!(refuse(json!(["bad", "b"]), false).contains("a bad word"));
    assert!(refuse(json!(["a\u{fdd0}", "b"]), false).contains("U+FDD0"));
    assert!(refuse(json!([]), false).contains("no turns"));
    assert!(refuse(json!(["no picture", "b"]), true).contains("0 `<image>`"));
}
