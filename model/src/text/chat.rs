//! Chat templates: a checkpoint's own way of writing a conversation down, a program in the Jinja language.
//!
//! Reference: the library's `apply_chat_template`. Templates come with weights from anywhere, so they run under fuel, which pays
//! for every instruction and every byte, and reach nothing but the conversation. What a single instruction can do without
//! paying, going through a list that was doubled again and again, ends by the clock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use fancy_regex::Regex;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json, json};

use super::jinja;
use super::settings;
use super::template::{IMAGE_TAG, Prompt, Role, Turn, check_roles, normalised, strip};
use super::tokenizer::read;
use super::{TextError, TokenizerError};

/// What a rendering may use. A long conversation takes a hundredth; all of it is gone in a fraction of a second, and buys 64 MB.
const FUEL: u64 = 1_000_000;
/// How long a rendering may take; fuel is gone long before, unless an instruction does not end.
const TIME: Duration = Duration::from_secs(2);
/// Levels of macros and includes.
const DEPTH: usize = 64;
/// Published templates have a few kilobytes.
const MAX_BYTES: usize = 1 << 20;
/// Stand around what a template marks as generated; Unicode keeps these two out of texts.
const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// The chat template of a model directory.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    path: PathBuf,
    /// `bos_token`, `eos_token` and so on.
    tokens: BTreeMap<String, String>,
    /// Whether a message's content is a list of parts, each a picture or a text; otherwise it is one text.
    in_parts: bool,
    /// Whether the template itself says what an assistant generates, by `{% generation %}`.
    has_marks: bool,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`; where there is none, `chat_template.json`, or else `chat_template` in
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// There is no template, or it cannot write down a question and an answer within its bounds.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let settings = settings::read(dir)?;
        let (path, source) = find(dir, settings.value("chat_template"))?;
        Self::new(&path, &source, settings.tokens())
    }

    /// A template from its text; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn new(path: &Path, source: &str, tokens: BTreeMap<String, String>) -> Result<Self, TokenizerError> {
        let broken = |problem: String| TokenizerError::Broken { path: path.to_path_buf(), problem };
        if source.len() > MAX_BYTES {
            return Err(broken(format!("its chat template has {} bytes; at most {MAX_BYTES}", source.len())));
        }
        let (source, has_marks) = with_marks(source);
        let mut environment = jinja::environment();
        environment.set_syntax(blocks_like_the_library().map_err(|error| broken(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH);
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| broken(format!("its chat template has an error: {}", explain(&error))))?;
        let environment = Arc::new(environment);
        let mut template = Self { environment, path: path.to_path_buf(), tokens, in_parts: false, has_marks };
        template.in_parts = template.takes_parts();
        let probe = [Turn { from: "human", value: "Hello" }, Turn { from: "gpt", value: "World" }];
        template
            .render(&probe, false)
            .map_err(|error| broken(format!("it cannot write down a question and an answer: {error}")))?;
        Ok(template)
    }

    /// The file that the template is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an answer ends with the end-of-sequence token. If not, training on it does not teach a model to stop.
    pub fn ends_answers(&self) -> bool {
        let probe = [Turn { from: "human", value: "Hello" }, Turn { from: "gpt", value: "World" }];
        let Ok(prompt) = self.render(&probe, false) else { return false };
        let end: Option<String> =
            prompt.answers.first().map(|answer| prompt.pieces.concat().chars().take(answer.end).collect());
        let token = self.tokens.get("eos_token");
        token.is_some_and(|token| end.is_some_and(|text| text.trim_end().ends_with(token.as_str())))
    }

    /// Renders a conversation. In a record with a picture, the turn with the image tag has the picture at its front.
    ///
    /// An answer is what `{% generation %}` encloses. In a template without it, an answer is what a turn adds to the
    /// conversation before it with the opening of an answer (`add_generation_prompt`), up to the end-of-sequence token if
    /// there is one.
    ///
    /// # Errors
    /// The speakers do not alternate, the template fails or refuses the conversation, or answers cannot be told from the rest.
    pub fn render(&self, turns: &[Turn<'_>], has_image: bool) -> Result<Prompt, TextError> {
        let roles = check_roles(turns)?;
        let dropped = usize::from(roles.first() == Some(&Role::Assistant));
        let (turns, roles) = (&turns[dropped..], &roles[dropped..]);
        if turns.iter().any(|turn| turn.value.contains(MARKS)) {
            return Err(failed("a turn contains a character that is no text (U+FDD0 or U+FDD1)".into()));
        }
        let messages: Vec<Json> =
            turns.iter().zip(roles).map(|(turn, role)| self.message(turn, *role, has_image)).collect();
        let text = self.text(&messages, false)?;
        let (text, answers) = if self.has_marks { marked(&text)? } else { self.added(text, &messages, roles)? };
        let pieces: Vec<String> =
            if has_image { text.split(IMAGE_TAG).map(str::to_string).collect() } else { vec![text] };
        if has_image && pieces.len() != 2 {
            let found = pieces.len() - 1;
            return Err(failed(format!("it writes {found} `{IMAGE_TAG}` for one picture")));
        }
        Ok(Prompt { pieces, answers })
    }

    /// The text of messages as the library has them.
    ///
    /// # Errors
    /// The template fails, refuses the conversation or uses up its fuel.
    pub fn text(&self, messages: &[Json], add_generation_prompt: bool) -> Result<String, TextError> {
        let mut context: Map<String, Json> =
            self.tokens.iter().map(|(name, token)| (name.clone(), json!(token))).collect();
        context.insert("messages".into(), json!(messages));
        context.insert("add_generation_prompt".into(), json!(add_generation_prompt));
        context.insert("tools".into(), Json::Null);
        context.insert("documents".into(), Json::Null);
        let environment = Arc::clone(&self.environment);
        let (sender, receiver) = mpsc::channel();
        // A thread cannot be ended from outside. One that goes on computes for nobody until the program ends, which an error
        // in a template makes it do.
        thread::spawn(move || {
            let template = environment.get_template(NAME);
            let text = template.and_then(|template| template.render(Value::from(Serde(context))));
            drop(sender.send(text.map_err(|error| explain(&error))));
        });
        match receiver.recv_timeout(TIME) {
            Ok(text) => text.map_err(failed),
            Err(_) => Err(failed(format!("it did not end within {} seconds", TIME.as_secs()))),
        }
    }

    fn message(&self, turn: &Turn<'_>, role: Role, has_image: bool) -> Json {
        let name = match role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        if !self.in_parts {
            return json!({"role": name, "content": normalised(turn.value, has_image)});
        }
        let text = |text: &str| json!({"type": "text", "text": text});
        let content = if has_image && turn.value.contains(IMAGE_TAG) {
            vec![json!({"type": "image"}), text(strip(&turn.value.replace(IMAGE_TAG, "")))]
        } else {
            vec![text(turn.value)]
        };
        json!({"role": name, "content": content})
    }

    /// Whether the template looks into a list of parts: one that takes texts fails on it, or writes all of it down.
    fn takes_parts(&self) -> bool {
        const WORDS: [&str; 2] = ["Hello", "no template reads this"];
        let messages = [json!({"role": "user", "content": [{"type": "text", "text": WORDS[0], "probe": WORDS[1]}]})];
        let text = self.text(&messages, false).unwrap_or_default();
        text.contains(WORDS[0]) && !text.contains(WORDS[1])
    }

    /// Answers as what each assistant's turn adds, in characters.
    fn added(&self, text: String, messages: &[Json], roles: &[Role]) -> Result<(String, Vec<Range<usize>>), TextError> {
        let mut answers = Vec::new();
        for (at, _) in roles.iter().enumerate().filter(|(_, role)| **role == Role::Assistant) {
            let (before, after) = (self.text(&messages[..at], true)?, self.text(&messages[..=at], false)?);
            let Some(answer) = after.strip_prefix(&before).filter(|_| text.starts_with(&after)) else {
                let problem = "a turn changes what stands before it, so answers cannot be told from the rest; \
                               mark them in the template by {% generation %} and {% endgeneration %}";
                return Err(failed(problem.into()));
            };
            // What joins turns behind the end is not generated.
            let end = self.tokens.get("eos_token").filter(|token| !token.is_empty());
            let length = end.and_then(|token| Some(answer.rfind(token)? + token.len())).unwrap_or(answer.len());
            let start = before.chars().count();
            answers.push(start..start + answer[..length].chars().count());
        }
        Ok((text, answers))
    }
}

/// The only template of an environment.
const NAME: &str = "chat";

/// The file and the text of a directory's template; `setting` is that of `tokenizer_config.json`.
fn find(dir: &Path, setting: Option<&Json>) -> Result<(PathBuf, String), TokenizerError> {
    let config = dir.join("tokenizer_config.json");
    let plain = dir.join("chat_template.jinja");
    if plain.is_file() {
        let text = String::from_utf8(read(&plain)?);
        let broken = |_| TokenizerError::Broken { path: plain.clone(), problem: "it is not UTF-8".into() };
        return Ok((plain.clone(), text.map_err(broken)?));
    }
    let file = dir.join("chat_template.json");
    if file.is_file() {
        let broken = |problem: String| TokenizerError::Broken { path: file.clone(), problem };
        let content: Json = serde_json::from_slice(&read(&file)?).map_err(|error| broken(error.to_string()))?;
        let template = content.get("chat_template").and_then(named);
        let template = template.ok_or_else(|| broken("`chat_template` is no text".into()))?;
        return Ok((file, template));
    }
    let broken = |problem: &str| TokenizerError::Broken { path: config.clone(), problem: problem.into() };
    match setting {
        None | Some(Json::Null) => Err(broken(
            "it has no `chat_template`, and there is no chat_template.jinja beside it; choose another data.template",
        )),
        Some(setting) => match named(setting) {
            Some(template) => Ok((config, template)),
            None => Err(broken("`chat_template` is neither a text nor a list with one of the name `default`")),
        },
    }
}

/// A template that is given as a text, or among others under the name `default`.
fn named(setting: &Json) -> Option<String> {
    match setting {
        Json::String(text) => Some(text.clone()),
        Json::Array(list) => {
            let default = list.iter().find(|one| one.get("name").and_then(Json::as_str) == Some("default"))?;
            Some(default.get("template")?.as_str()?.to_string())
        }
        _ => None,
    }
}

/// The template with marks written where `{% generation %}` begins and ends, and whether there are any. The tags become
/// conditions that always hold, which treat the space around them in the same way.
fn with_marks(source: &str) -> (String, bool) {
    let tag = |name: &str| Regex::new(&format!(r"\{{%([-+]?)\s*{name}\s*([-+]?)%\}}")).ok();
    let (Some(begin), Some(end)) = (tag("generation"), tag("endgeneration")) else { return (source.into(), false) };
    let mark = |at: usize| format!("{{{{ '{}' }}}}", MARKS[at]);
    let begins = format!("{{%$1 if true %}}{}{{% if true $2%}}", mark(0));
    let ends = format!("{{%$1 endif %}}{}{{% endif $2%}}", mark(1));
    let marked = begin.replace_all(source, begins.as_str());
    let has_marks = marked != source;
    (end.replace_all(&marked, ends.as_str()).into_owned(), has_marks)
}

/// The text without marks, and what they enclosed, in characters.
fn marked(text: &str) -> Result<(String, Vec<Range<usize>>), TextError> {
    let (mut plain, mut length, mut open, mut answers) = (String::with_capacity(text.len()), 0, None, Vec::new());
    for c in text.chars() {
        match (c, open) {
            (c, None) if c == MARKS[0] => open = Some(length),
            (c, Some(start)) if c == MARKS[1] => {
                answers.push(start..length);
                open = None;
            }
            (c, _) if MARKS.contains(&c) => return Err(failed("{% generation %} is nested".into())),
            (c, _) => {
                plain.push(c);
                length += 1;
            }
        }
    }
    Ok((plain, answers))
}

fn blocks_like_the_library() -> Result<SyntaxConfig, minijinja::Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

fn failed(problem: String) -> TextError {
    TextError::Chat { problem }
}

/// What went wrong and why, without the engine's own report of its state.
fn explain(error: &minijinja::Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return format!("it takes more than {FUEL} operations, as if it had no end");
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
