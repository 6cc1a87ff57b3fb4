//! Files that somebody made to do harm: each is refused with an error of the model or the data, in bounded time and
//! memory, and nothing in it runs.

mod pickles;
#[path = "../support/torch.rs"]
#[allow(dead_code, reason = "only archives are made here, no tensors")]
mod torch;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use viral_model::config::LlavaConfig;
use viral_model::image::{DecodeLimits, decode};
use viral_model::text::{ChatTemplate, Prompt, Tokenizer};
use viral_model::weights::TensorFile;
use viral_train::{Error, Kind};

/// No file may take longer.
const LONGEST: Duration = Duration::from_secs(1);

/// All files together may not take more memory than this at any time.
const MEMORY: u64 = 256 << 20;

/// A folder for hostile files, with a name that their code would like to create.
struct Corpus {
    folder: TempDir,
    count: usize,
}

impl Corpus {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), count: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a file would create if anything in it ran.
    fn trap(&self) -> PathBuf {
        self.path("executed")
    }

    /// Opens something that must be refused; the message has to contain `expected`.
    #[track_caller]
    fn refused<T, E: Into<Error>>(&mut self, what: &str, expected: &str, open: impl FnOnce() -> Result<T, E>) {
        self.refused_within(LONGEST, what, expected, open);
    }

    #[track_caller]
    fn refused_within<T, E: Into<Error>>(
        &mut self,
        longest: Duration,
        what: &str,
        expected: &str,
        open: impl FnOnce() -> Result<T, E>,
    ) {
        let before = Instant::now();
        let error: Error = open().map(drop).map_err(Into::into).expect_err(what);
        let time = before.elapsed();
        assert!(matches!(error.kind, Kind::Model | Kind::Data), "{what}: {error}");
        assert!([3, 4].contains(&error.kind.exit_code()));
        assert!(error.to_string().contains(expected), "{what}: `{error}` lacks `{expected}`");
        assert!(time < longest, "{what} takes {time:?}");
        assert!(!self.trap().exists(), "{what} was executed");
        self.count += 1;
    }

    /// Writes a weight file that must be refused.
    #[track_caller]
    fn weights(&mut self, what: &str, expected: &str, bytes: &[u8]) {
        let path = self.path("model.bin");
        fs::write(&path, bytes).unwrap();
        self.refused(what, expected, || TensorFile::open(&path));
    }
}

/// Most memory that this process has ever had, in bytes; nothing where the system does not tell.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// One test, so that the memory is this one's alone.
#[test]
fn hostile_files_are_refused() {
    let before = peak_memory();
    let mut corpus = Corpus::new();
    pickles::foreign_code(&mut corpus);
    pickles::bombs(&mut corpus);
    pickles::archives(&mut corpus);
    weights::headers(&mut corpus);
    weights::indexes(&mut corpus);
    weights::damage(&mut corpus);
    pictures(&mut corpus);
    tokenizers(&mut corpus);
    chat_templates(&mut corpus);
    configurations(&mut corpus);
    println!("{} files", corpus.count);
    assert!(corpus.count > 200);
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        println!("{} MiB", (after - before) >> 20);
        assert!(after - before < MEMORY, "{} bytes", after - before);
    }
}

/// Small files that announce pictures of gigapixels.
fn pictures(corpus: &mut Corpus) {
    let side = 60_000u32;
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [side.to_be_bytes().as_slice(), &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in [(b"IHDR", header.as_slice()), (b"IDAT", &[0x78, 0x9c, 0x63]), (b"IEND", &[])] {
        let body = [kind.as_slice(), data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&body);
        png.extend(crc32fast::hash(&body).to_be_bytes());
    }
    let mut gif = b"GIF89a".to_vec();
    gif.extend([
        0xFF, 0xFF, 0xFF, 0xFF, 0x80, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, b',', 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 2,
    ]);
    let mut bmp = b"BM".to_vec();
    bmp.extend([0, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0]);
    bmp.extend([side.to_le_bytes(), side.to_le_bytes()].concat());
    bmp.extend([1, 0, 24, 0].into_iter().chain([0; 24]));
    let mut webp = b"RIFF\x24\0\0\0WEBPVP8L\x18\0\0\0\x2f\xff\xff\xff\x0f".to_vec();
    webp.extend([0; 19]);
    for (name, bytes) in [("png", png), ("gif", gif), ("bmp", bmp), ("webp", webp)] {
        for end in [bytes.len(), bytes.len() / 2, 8] {
            let what = format!("{end} bytes of a {name} of gigapixels");
            corpus.refused(&what, "bomb.jpg", || {
                let decoded = decode(&bytes[..end], Path::new("bomb.jpg"), &DecodeLimits::default());
                // What the engine makes of a picture that it cannot use.
                decoded.map_err(|error| Error {
                    kind: Kind::Data,
                    what: error.to_string(),
                    place: String::new(),
                    why: String::new(),
                    hint: String::new(),
                })
            });
        }
    }
}

fn tokenizers(corpus: &mut Corpus) {
    let dir = corpus.path("tokenizer");
    fs::create_dir_all(&dir).unwrap();
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let json = dir.join("tokenizer.json");
    for (what, text) in [
        ("a tokenizer of nested lists", nested.as_str()),
        ("a tokenizer that is a web page", "<html></html>"),
        ("a tokenizer without a model", "{}"),
    ] {
        fs::write(&json, text).unwrap();
        corpus.refused(what, "tokenizer.json", || Tokenizer::from_dir(&dir));
    }
    // A pattern that would backtrack for years.
    let split =
        json!({ "type": "Split", "pattern": { "Regex": "(a|a)*(?=b)$" }, "behavior": "Isolated", "invert": false });
    let model = json!({ "type": "WordLevel", "vocab": { "a": 0, "u": 1 }, "unk_token": "u" });
    let slow = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": split, "post_processor": null, "decoder": null, "model": model,
    });
    fs::write(&json, slow.to_string()).unwrap();
    let before = Instant::now();
    if let Ok(tokenizer) = Tokenizer::from_dir(&dir) {
        let prompt = Prompt { pieces: vec!["a".repeat(5000)], answers: Vec::new() };
        // Either outcome is fine, as long as there is one.
        let _ = tokenizer.encode_prompt(&prompt);
    }
    assert!(before.elapsed() < LONGEST, "a pattern takes {:?}", before.elapsed());
    fs::remove_file(&json).unwrap();

    let long = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
    let piece = |body: &[u8]| [&[0x0A, body.len() as u8], body].concat();
    let models: [(&str, Vec<u8>); 7] = [
        ("an empty model", Vec::new()),
        ("a piece longer than the file", [&[0x0A], long.as_slice()].concat()),
        ("a number without an end", vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("a piece that is not UTF-8", piece(&[0x0A, 1, 0xFF])),
        ("a model without a piece for the unknown", piece(&[0x0A, 1, b'a'])),
        ("an empty piece", [piece(&[0x0A, 0]), piece(&[0x0A, 1, b'u', 0x18, 2])].concat()),
        (
            "a table of characters that points nowhere",
            [piece(&[0x0A, 1, b'u', 0x18, 2]), vec![0x1A, 7, 0x12, 5, 0xFF, 0xFF, 0xFF, 0x7F, 0]].concat(),
        ),
    ];
    for (what, bytes) in models {
        fs::write(dir.join("tokenizer.model"), bytes).unwrap();
        corpus.refused(what, "tokenizer.model", || Tokenizer::from_dir(&dir));
    }
}

fn chat_templates(corpus: &mut Corpus) {
    let dir = corpus.path("chat");
    fs::create_dir_all(&dir).unwrap();
    for (what, template) in [
        ("loops in loops", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        (
            "a text that doubles",
            "{% set n = namespace(s='xy') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
        ),
        ("a gigabyte at once", "{{ 'x' * 1000000000 }}"),
        ("gigabytes in pieces", "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}"),
        ("a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        ("another file", "{% include '/etc/passwd' %}"),
        ("Python's insides", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    ] {
        fs::write(dir.join("chat_template.jinja"), template).unwrap();
        corpus.refused(what, "chat_template.jinja", || ChatTemplate::from_dir(&dir));
    }
    // An instruction that does not end pays no fuel: the clock ends it.
    let doubles =
        "{% set n = namespace(s=[1]) %}{% for i in range(50) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}";
    fs::write(dir.join("chat_template.jinja"), doubles).unwrap();
    let longest = Duration::from_secs(8);
    corpus.refused_within(longest, "a list that doubles", "chat_template.jinja", || ChatTemplate::from_dir(&dir));
}

fn configurations(corpus: &mut Corpus) {
    let dir = corpus.path("configuration");
    fs::create_dir_all(&dir).unwrap();
    let nested = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    for (what, text) in [
        ("a configuration of nested objects", nested.as_str()),
        ("a web page", "<!DOCTYPE html>"),
        ("an LFS pointer", "version https://git-lfs.github.com/spec/v1\n"),
        ("sizes beyond any machine", r#"{"model_type": "llava", "text_config": {"hidden_size": 1e300}}"#),
        ("a product beyond any machine", r#"{"model_type": "llava", "text_config": {"hidden_size": 99999999999}}"#),
        ("layers beyond any machine", r#"{"model_type": "llava", "text_config": {"num_hidden_layers": 1000000}}"#),
        ("control characters", "{\"model_type\": \"\\u001b[2J\"}"),
    ] {
        fs::write(dir.join("config.json"), text).unwrap();
        corpus.refused(what, "config.json", || LlavaConfig::from_dir(&dir));
    }
}
