//! From turns to a prompt.

use std::borrow::Cow;
use std::ops::Range;

use super::TextError;

/// Stands for a picture in the text of a turn.
pub const IMAGE_TAG: &str = "<image>";

/// How a conversation is written down. Reference: LLaVA `conversation.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Template {
    /// `vicuna_v1`: a curious user; answers end with `</s>`.
    VicunaV1,
    /// `llava_v1`: a curious human; answers end with `</s>`.
    LlavaV1,
    /// `qwen_2`: a curious human; answers end with `<|im_end|>`.
    Qwen2,
    /// `plain`: picture and caption, nothing else.
    Plain,
}

impl Template {
    /// Every template, in declaration order.
    pub const ALL: [Template; 4] = [Template::VicunaV1, Template::LlavaV1, Template::Qwen2, Template::Plain];

    /// The value of a configuration file; `v1` is another name of `vicuna_v1`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "v1" => Some(Template::VicunaV1),
            _ => Self::ALL.into_iter().find(|template| template.name() == name),
        }
    }

    /// Name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Template::VicunaV1 => "vicuna_v1",
            Template::LlavaV1 => "llava_v1",
            Template::Qwen2 => "qwen_2",
            Template::Plain => "plain",
        }
    }

    /// Closes an assistant's answer.
    pub fn end_token(self) -> &'static str {
        match self {
            Template::VicunaV1 | Template::LlavaV1 => "</s>",
            Template::Qwen2 => "<|im_end|>",
            Template::Plain => "\n",
        }
    }

    fn system(self) -> &'static str {
        match self {
            Template::VicunaV1 => {
                "A chat between a curious user and an artificial intelligence assistant. \
                 The assistant gives helpful, detailed, and polite answers to the user's questions."
            }
            Template::LlavaV1 | Template::Qwen2 => {
                "A chat between a curious human and an artificial intelligence assistant. \
                 The assistant gives helpful, detailed, and polite answers to the human's questions."
            }
            Template::Plain => "",
        }
    }
}

/// One turn of a record: its `from` and `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// `human` or `gpt`.
    pub from: &'a str,
    /// What is said.
    pub value: &'a str,
}

/// How a record is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderOptions {
    /// The template.
    pub template: Template,
    /// Whether the record has a picture. Only then does the image tag mean anything; otherwise it is ordinary text.
    pub has_image: bool,
    /// Whether the end token of a conversation's last answer is a target with the `qwen_2` template. The reference
    /// code never supervises it, so that is the default; the end tokens before it are targets there, too.
    pub qwen_supervise_final_eos: bool,
}

impl RenderOptions {
    /// The reference's behaviour.
    pub fn new(template: Template, has_image: bool) -> Self {
        Self { template, has_image, qwen_supervise_final_eos: false }
    }
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Text between pictures: one piece more than there are pictures.
    pub pieces: Vec<String>,
    /// Supervised ranges in characters (Unicode scalar values) of the whole prompt, in which an image tag counts with
    /// its own characters. An answer begins with the space behind `ASSISTANT:` and ends with the end token.
    pub answers: Vec<Range<usize>>,
}

/// Renders a conversation.
///
/// # Errors
/// There are no turns, a speaker is unknown or speaks twice in a row, or the `plain` template does not fit.
pub fn render(turns: &[Turn<'_>], options: RenderOptions) -> Result<Prompt, TextError> {
    let roles = check_roles(turns)?;
    let mut writer = Writer::default();
    match options.template {
        Template::Plain => plain(&mut writer, turns, &roles, options)?,
        Template::VicunaV1 | Template::LlavaV1 | Template::Qwen2 => chat(&mut writer, turns, &roles, options),
    }
    let pieces =
        if options.has_image { writer.text.split(IMAGE_TAG).map(str::to_string).collect() } else { vec![writer.text] };
    Ok(Prompt { pieces, answers: writer.answers })
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Assistant,
}

/// A first turn that is not the user's is dropped, so the list may begin with either role.
pub(super) fn check_roles(turns: &[Turn<'_>]) -> Result<Vec<Role>, TextError> {
    let mut roles: Vec<Role> = Vec::with_capacity(turns.len());
    for (index, turn) in turns.iter().enumerate() {
        let role = match turn.from {
            "human" => Role::User,
            "gpt" => Role::Assistant,
            other => return Err(TextError::Role { turn: index + 1, from: other.to_string() }),
        };
        if roles.last() == Some(&role) {
            return Err(TextError::Order { turn: index + 1, from: turn.from.to_string() });
        }
        roles.push(role);
    }
    if roles.is_empty() { Err(TextError::Empty) } else { Ok(roles) }
}

/// `system␣USER: question␣ASSISTANT: answer</s>USER: …`
fn chat(writer: &mut Writer, turns: &[Turn<'_>], roles: &[Role], options: RenderOptions) {
    let template = options.template;
    writer.push(template.system());
    writer.push(" ");
    let dropped = usize::from(roles.first() == Some(&Role::Assistant));
    for (turn, role) in turns.iter().zip(roles).skip(dropped) {
        let value = normalised(turn.value, options.has_image);
        match role {
            Role::User => writer.push("USER:"),
            Role::Assistant => writer.push("ASSISTANT:"),
        }
        // An empty message is an open turn, without anything behind the colon.
        if value.is_empty() {
            continue;
        }
        let start = writer.length;
        writer.push(" ");
        writer.push(&value);
        match role {
            Role::User => writer.push(" "),
            Role::Assistant => {
                writer.push(template.end_token());
                writer.answers.push(start..writer.length);
            }
        }
    }
    if template == Template::Qwen2
        && !options.qwen_supervise_final_eos
        && let Some(last) = writer.answers.last_mut()
    {
        last.end -= template.end_token().chars().count();
    }
}

/// `<image>caption⏎`; what the human says is left out.
fn plain(writer: &mut Writer, turns: &[Turn<'_>], roles: &[Role], options: RenderOptions) -> Result<(), TextError> {
    let wrong = |problem: &str| Err(TextError::Plain { problem: problem.to_string() });
    let ([question, caption], [Role::User, Role::Assistant]) = (turns, roles) else {
        return wrong(&format!(
            "there are {} turns, the first from `{}`",
            turns.len(),
            turns.first().map_or("", |t| t.from)
        ));
    };
    if !options.has_image || !question.value.contains(IMAGE_TAG) {
        return wrong("there is no picture in the human turn");
    }
    writer.push(IMAGE_TAG);
    let start = writer.length;
    writer.push(&normalised(caption.value, options.has_image));
    writer.push(options.template.end_token());
    writer.answers.push(start..writer.length);
    Ok(())
}

/// In a record with a picture, a turn that has image tags gets exactly one, at its front and followed by a newline.
pub(super) fn normalised(value: &str, has_image: bool) -> Cow<'_, str> {
    if !has_image || !value.contains(IMAGE_TAG) {
        return Cow::Borrowed(value);
    }
    let text = value.replace(IMAGE_TAG, "");
    Cow::Owned(strip(&format!("{IMAGE_TAG}\n{}", strip(&text))).to_string())
}

/// Python's `str.strip`, which also takes off the four ASCII separators.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// A prompt under construction; lengths are in characters.
#[derive(Default)]
struct Writer {
    text: String,
    length: usize,
    answers: Vec<Range<usize>>,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.length += text.chars().count();
    }
}
