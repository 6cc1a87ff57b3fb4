//! The Jinja environment that the library gives to chat templates.

use minijinja::value::{Kwargs, StringInput, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Filters, functions and Python's methods of texts, lists and dictionaries. No function reaches the clock or a file.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |_: &State<'_, '_>, message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("it refuses the conversation: {message}")))
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("join", join);
    environment.set_formatter(|out, state, value| {
        check_size(value)?;
        minijinja::escape_formatter(out, state, value)
    });
    environment
}

/// The engine's own, on lists that are not too long.
fn join(
    state: &mut State<'_, '_>,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    check_size(value)?;
    minijinja::filters::join(state, value, joiner, attribute, options)
}

/// Elements, at all depths, of a value that is written down at once.
const MAX_ELEMENTS: usize = 1_000_000;

/// Lists are joined without being copied, so a long one costs nothing before it is gone through.
fn check_size(value: &Value) -> Result<(), Error> {
    fn count(value: &Value, left: &mut usize) -> Result<(), Error> {
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Ok(());
        }
        for element in value.try_iter()? {
            *left = left.checked_sub(1).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidOperation,
                    format!("it writes a list of more than {MAX_ELEMENTS} elements"),
                )
            })?;
            count(&element, left)?;
        }
        Ok(())
    }
    let mut left = MAX_ELEMENTS;
    count(value, &mut left)
}

/// JSON as Python's `json.dumps(…, ensure_ascii=False)` writes it.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    check_size(value)?;
    let indent: Option<usize> = options.get("indent")?;
    // Of no effect on what is written here, or the default.
    let _: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let mut text = Vec::new();
    let wrong = |error: serde_json::Error| Error::new(ErrorKind::InvalidOperation, error.to_string());
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut text, Spaced)),
        Some(spaces) => {
            let indent = " ".repeat(spaces.min(16));
            value.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(indent.as_bytes())))
        }
    }
    .map_err(wrong)?;
    String::from_utf8(text).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// A space behind each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
