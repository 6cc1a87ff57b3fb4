//! One record of a dataset: its fields, and the rules that need nothing but its text.

use serde_json::{Map, Value};

use super::defect::Rule;

/// The tag that stands for the picture in a turn's text.
pub const IMAGE_TAG: &str = "<image>";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `"human"`: asks.
    Human,
    /// `"gpt"`: answers; these are the tokens a model learns.
    Assistant,
}

/// One turn of a conversation, with the text as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said; may hold [`IMAGE_TAG`].
    pub text: String,
}

/// A record in LLaVA's format. Turns alternate and begin with the human's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's id as text; `None` if it has none. Ids need not be unique.
    pub id: Option<String>,
    /// Path of the picture as the file gives it, relative to the picture folder.
    pub image: Option<String>,
    /// The conversation.
    pub turns: Vec<Turn>,
    /// Whitespace-separated words of all turns in the file, at least 1; negative if there is no picture. This is the
    /// length that the reference groups records by.
    pub modality_length: i64,
}

/// Why a text is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule it breaks.
    pub rule: Rule,
    /// The record's id, if there is one.
    pub id: Option<String>,
    /// Line and column inside the text, counted from 1, if the fault has a place.
    pub at: Option<(u64, u64)>,
    /// What was found and what was expected.
    pub detail: String,
}

impl Record {
    /// Reads a record from its JSON text and checks everything that can be checked without other files.
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        let value: Value = serde_json::from_slice(text).map_err(|error| {
            let at = (error.line() > 0).then(|| (error.line() as u64, error.column() as u64));
            Fault { rule: Rule::BrokenJson, id: None, at, detail: json_detail(&error) }
        })?;
        let Value::Object(fields) = value else {
            let detail = format!("a record is {}, expected an object", kind(&value));
            return Err(Fault { rule: Rule::WrongType, id: None, at: None, detail });
        };
        let id = read_id(&fields)?;
        match read_body(&fields) {
            Ok((image, turns, modality_length)) => Ok(Self { id, image, turns, modality_length }),
            Err((rule, detail)) => Err(Fault { rule, id, at: None, detail }),
        }
    }
}

type Checked<T> = Result<T, (Rule, String)>;

fn read_id(fields: &Map<String, Value>) -> Result<Option<String>, Fault> {
    match fields.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.clone())),
        Some(Value::Number(id)) if !id.is_f64() => Ok(Some(id.to_string())),
        Some(other) => {
            let detail = format!("`id` is {}, expected text or an integer", kind(other));
            Err(Fault { rule: Rule::WrongType, id: None, at: None, detail })
        }
    }
}

fn read_body(fields: &Map<String, Value>) -> Checked<(Option<String>, Vec<Turn>, i64)> {
    let image = match fields.get("image") {
        None | Some(Value::Null) => None,
        Some(Value::String(path)) => Some(path.clone()),
        Some(Value::Array(paths)) => {
            let detail = format!("`image` is a list of {}, expected one path", paths.len());
            return Err((Rule::WrongType, detail));
        }
        Some(other) => return Err((Rule::WrongType, format!("`image` is {}, expected text", kind(other)))),
    };
    let turns = match fields.get("conversations") {
        Some(Value::Array(turns)) => turns,
        Some(other) => return Err((Rule::WrongType, format!("`conversations` is {}, expected a list", kind(other)))),
        None => return Err((Rule::WrongType, "`conversations` is missing".into())),
    };
    if turns.is_empty() {
        return Err((Rule::WrongType, "`conversations` is empty".into()));
    }
    let mut turns = turns.iter().enumerate().map(read_turn).collect::<Checked<Vec<Turn>>>()?;
    let words: usize = turns.iter().map(|turn| count_words(&turn.text)).sum();
    let words = i64::try_from(words.max(1)).unwrap_or(i64::MAX);
    let modality_length = if image.is_some() { words } else { -words };

    for (index, pair) in turns.windows(2).enumerate() {
        if pair[0].role == pair[1].role {
            let detail = format!("turns {index} and {} (counted from 0) are both {}", index + 1, pair[0].role.name());
            return Err((Rule::RolesNotAlternating, detail));
        }
    }
    // As in the reference, an opening turn that is not the human's is dropped.
    let dropped = usize::from(turns.first().is_some_and(|turn| turn.role != Role::Human));
    turns.drain(..dropped);
    if !turns.iter().any(|turn| turn.role == Role::Assistant) {
        return Err((Rule::NoSupervisedToken, "no turn from `gpt` answers a question".into()));
    }
    check_tags(image.as_deref(), &turns)?;
    Ok((image, turns, modality_length))
}

fn read_turn((index, turn): (usize, &Value)) -> Checked<Turn> {
    let Value::Object(turn) = turn else {
        return Err((Rule::WrongType, format!("turn {index} is {}, expected an object", kind(turn))));
    };
    let field = |name: &str| match turn.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err((Rule::WrongType, format!("`{name}` of turn {index} is {}, expected text", kind(other)))),
        None => Err((Rule::WrongType, format!("turn {index} has no `{name}`"))),
    };
    let role = match field("from")? {
        "human" => Role::Human,
        "gpt" => Role::Assistant,
        other => return Err((Rule::UnknownRole, format!("turn {index} is from `{other}`"))),
    };
    Ok(Turn { role, text: field("value")?.to_owned() })
}

/// Several tags in one turn are one picture (the reference folds them into one); tags in several turns are several.
fn check_tags(image: Option<&str>, turns: &[Turn]) -> Checked<()> {
    let tagged: Vec<usize> = (0..turns.len()).filter(|&index| turns[index].text.contains(IMAGE_TAG)).collect();
    match (image, tagged.as_slice()) {
        (None, []) | (Some(_), [_]) => Ok(()),
        (None, [index, ..]) => {
            let detail = format!("turn {index} contains `{IMAGE_TAG}` but the record has no `image`");
            Err((Rule::TagWithoutImage, detail))
        }
        (Some(image), []) => {
            Err((Rule::ImageWithoutTag, format!("`image` is `{image}` but no turn contains `{IMAGE_TAG}`")))
        }
        (Some(_), several) => {
            let detail = format!("`{IMAGE_TAG}` stands in {} turns, expected one", several.len());
            Err((Rule::SeveralImageTags, detail))
        }
    }
}

impl Role {
    /// Name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Assistant => "gpt",
        }
    }
}

/// Words as Python's `str.split()` counts them; it also splits at the four separator control characters.
fn count_words(text: &str) -> usize {
    let space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    text.split(space).filter(|word| !word.is_empty()).count()
}

/// The parser's complaint without its place, which the caller translates to the file.
fn json_detail(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (Rule, String) {
        match Record::parse(text.as_bytes()) {
            Err(fault) => (fault.rule, fault.detail),
            Ok(record) => panic!("{text} was accepted: {record:?}"),
        }
    }

    fn with_turns(head: &str, turns: &[(&str, &str)]) -> String {
        let turns: Vec<Value> =
            turns.iter().map(|(from, value)| serde_json::json!({"from": from, "value": value})).collect();
        format!("{{{head}\"conversations\": {}}}", Value::Array(turns))
    }

    #[test]
    fn a_record_keeps_its_text() -> Result<(), Fault> {
        let text = with_turns(
            "\"id\": 17, \"image\": \"a/b.png\", \"model\": \"x\", ",
            &[("human", "<image>\nWhat is\u{1c}this?"), ("gpt", " A cat. ")],
        );
        let record = Record::parse(text.as_bytes())?;
        assert_eq!(record.id.as_deref(), Some("17"));
        assert_eq!(record.image.as_deref(), Some("a/b.png"));
        assert_eq!(record.turns[1], Turn { role: Role::Assistant, text: " A cat. ".into() });
        assert_eq!(record.modality_length, 6);
        Ok(())
    }

    #[test]
    fn text_only_records_count_negative_words() -> Result<(), Fault> {
        let record = Record::parse(with_turns("", &[("human", "One two"), ("gpt", "three")]).as_bytes())?;
        assert_eq!((record.id, record.modality_length), (None, -3));
        let record = Record::parse(with_turns("\"image\": null, ", &[("human", ""), ("gpt", "")]).as_bytes())?;
        assert_eq!((record.image, record.modality_length), (None, -1));
        Ok(())
    }

    #[test]
    fn an_opening_answer_is_dropped_but_counted() -> Result<(), Fault> {
        let text = with_turns("", &[("gpt", "Hello there"), ("human", "Hi"), ("gpt", "Bye")]);
        let record = Record::parse(text.as_bytes())?;
        assert_eq!(record.turns.len(), 2);
        assert_eq!(record.turns[0].role, Role::Human);
        assert_eq!(record.modality_length, -4);
        Ok(())
    }

    #[test]
    fn repeated_tags_in_one_turn_are_one_picture() {
        let text = with_turns("\"image\": \"a\", ", &[("human", "<image> x <image>"), ("gpt", "y")]);
        assert!(Record::parse(text.as_bytes()).is_ok());
    }

    #[test]
    fn each_rule_is_found() {
        let qa = [("human", "q"), ("gpt", "a")];
        assert_eq!(fault("{\"id\": }").0, Rule::BrokenJson);
        assert_eq!(fault("{\"id\": \"\u{1}\"}").0, Rule::BrokenJson);
        assert_eq!(fault("[]"), (Rule::WrongType, "a record is a list, expected an object".into()));
        assert_eq!(fault(&with_turns("\"id\": 1.5, ", &qa)).1, "`id` is a fraction, expected text or an integer");
        assert_eq!(fault(&with_turns("\"id\": [], ", &qa)).0, Rule::WrongType);
        assert_eq!(fault(&with_turns("\"image\": 3, ", &qa)).1, "`image` is an integer, expected text");
        assert_eq!(
            fault(&with_turns("\"image\": [\"a\", \"b\"], ", &qa)).1,
            "`image` is a list of 2, expected one path"
        );
        assert_eq!(fault("{}").1, "`conversations` is missing");
        assert_eq!(fault("{\"conversations\": \"x\"}").1, "`conversations` is text, expected a list");
        assert_eq!(fault("{\"conversations\": []}").1, "`conversations` is empty");
        assert_eq!(fault("{\"conversations\": [3]}").1, "turn 0 is an integer, expected an object");
        assert_eq!(fault("{\"conversations\": [{\"from\": \"human\"}]}").1, "turn 0 has no `value`");
        assert_eq!(fault("{\"conversations\": [{\"value\": \"human\"}]}").1, "turn 0 has no `from`");
        assert_eq!(
            fault("{\"conversations\": [{\"from\": \"human\", \"value\": null}]}").1,
            "`value` of turn 0 is null, expected text"
        );
        assert_eq!(
            fault(&with_turns("", &[("human", "q"), ("system", "a")])),
            (Rule::UnknownRole, "turn 1 is from `system`".into())
        );
        assert_eq!(
            fault(&with_turns("", &[("gpt", "x"), ("human", "q"), ("human", "a")])),
            (Rule::RolesNotAlternating, "turns 1 and 2 (counted from 0) are both human".into())
        );
        assert_eq!(fault(&with_turns("", &[("gpt", "x"), ("gpt", "a")])).0, Rule::RolesNotAlternating);
        assert_eq!(fault(&with_turns("", &[("gpt", "x")])).0, Rule::NoSupervisedToken);
        assert_eq!(fault(&with_turns("", &[("human", "x")])).0, Rule::NoSupervisedToken);
        assert_eq!(fault(&with_turns("", &[("human", "<image>"), ("gpt", "a")])).0, Rule::TagWithoutImage);
        assert_eq!(fault(&with_turns("\"image\": \"a\", ", &qa)).0, Rule::ImageWithoutTag);
        assert_eq!(
            fault(&with_turns("\"image\": \"a\", ", &[("human", "<image>"), ("gpt", "a"), ("human", "<image>")])).0,
            Rule::SeveralImageTags
        );
    }

    #[test]
    fn a_fault_keeps_the_id_and_the_place() {
        match Record::parse(b"{\"id\": \"x\", \"conversations\": 1}") {
            Err(fault) => assert_eq!(fault.id.as_deref(), Some("x")),
            Ok(record) => panic!("{record:?}"),
        }
        match Record::parse(b"{\"id\": \"x\",\n\"conversations\": }") {
            Err(fault) => assert_eq!((fault.at, fault.detail.as_str()), (Some((2, 18)), "expected value")),
            Ok(record) => panic!("{record:?}"),
        }
    }

    #[test]
    fn nesting_bombs_are_refused() {
        let text = format!("{{\"conversations\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(fault(&text).0, Rule::BrokenJson);
    }
}
