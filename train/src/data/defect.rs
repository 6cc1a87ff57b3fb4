//! What can be wrong with a record, and how the user is told.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind};

/// Defects that are spelled out in one error; the rest is only counted.
const SHOWN: usize = 8;

/// The rule that a record breaks. The name of a rule is part of the program's output and stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The text is not JSON.
    BrokenJson,
    /// A field is missing or of the wrong type.
    WrongType,
    /// A turn is neither the human's nor the model's.
    UnknownRole,
    /// Two neighbouring turns have the same role.
    RolesNotAlternating,
    /// The conversation does not fit the template.
    Template,
    /// The tokenizer gives an id that the model has no embedding for.
    UnknownToken,
    /// The picture's path is absolute or leads out of the picture folder.
    ImageOutsideRoot,
    /// There is no file where the record says.
    ImageMissing,
    /// The picture's file cannot be opened or read.
    ImageUnreadable,
    /// The file is no picture of a known format, or is damaged.
    ImageBroken,
    /// The picture has more pixels than any honest dataset needs.
    ImageTooLarge,
    /// The conversation names a picture but the record has none.
    TagWithoutImage,
    /// The record has a picture but the conversation does not say where it belongs.
    ImageWithoutTag,
    /// Several turns ask for a picture.
    SeveralImageTags,
    /// No token of the sample would be a target of the language loss.
    NoSupervisedToken,
}

impl Rule {
    /// Stable name, as printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::BrokenJson => "broken-json",
            Self::WrongType => "wrong-type",
            Self::UnknownRole => "unknown-role",
            Self::RolesNotAlternating => "roles-not-alternating",
            Self::Template => "template",
            Self::UnknownToken => "unknown-token",
            Self::ImageOutsideRoot => "image-outside-root",
            Self::ImageMissing => "image-missing",
            Self::ImageUnreadable => "image-unreadable",
            Self::ImageBroken => "image-broken",
            Self::ImageTooLarge => "image-too-large",
            Self::TagWithoutImage => "tag-without-image",
            Self::ImageWithoutTag => "image-without-tag",
            Self::SeveralImageTags => "several-image-tags",
            Self::NoSupervisedToken => "no-supervised-token",
        }
    }

    /// What the user can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::BrokenJson => {
                "repair the file; it is a JSON array of records, or JSONL with one record on each line, in UTF-8"
            }
            Self::WrongType => {
                "a record is {\"id\": text or integer, \"image\": optional path, \"conversations\": [{\"from\": …, \"value\": …}, …]}"
            }
            Self::UnknownRole => "use \"from\": \"human\" for questions and \"from\": \"gpt\" for answers",
            Self::RolesNotAlternating => "merge neighbouring turns of one role into one turn",
            Self::Template => "choose another data.template, or change the record",
            Self::UnknownToken => "use the tokenizer.json that belongs to the model's weights",
            Self::ImageOutsideRoot => {
                "give a path relative to data.images that stays inside that folder, links included"
            }
            Self::ImageMissing => "check data.images and the record's path; capital letters matter",
            Self::ImageUnreadable => "check who may read the file, and the disk",
            Self::ImageBroken => "fetch the picture again; PNG, JPEG, WebP, BMP and GIF are read",
            Self::ImageTooLarge => "shrink the picture",
            Self::TagWithoutImage => "add the \"image\" field, or remove `<image>` from the text",
            Self::ImageWithoutTag => "put `<image>` into the question that the picture belongs to",
            Self::SeveralImageTags => "one picture a record is supported: keep `<image>` in one turn",
            Self::NoSupervisedToken => "add an answer, shorten the question, or raise train.max_length",
        }
    }

    fn summary(self) -> &'static str {
        match self {
            Self::BrokenJson => "the dataset is not valid JSON",
            Self::WrongType => "a record has a field of the wrong type",
            Self::UnknownRole => "a turn has an unknown role",
            Self::RolesNotAlternating => "the roles of a conversation do not alternate",
            Self::Template => "a conversation does not fit the template",
            Self::UnknownToken => "a token has no embedding",
            Self::ImageOutsideRoot => "a picture's path leaves the picture folder",
            Self::ImageMissing => "a picture is missing",
            Self::ImageUnreadable => "a picture cannot be read",
            Self::ImageBroken => "a picture is broken",
            Self::ImageTooLarge => "a picture is too large",
            Self::TagWithoutImage => "an image tag has no image",
            Self::ImageWithoutTag => "an image has no image tag",
            Self::SeveralImageTags => "a record has several image tags",
            Self::NoSupervisedToken => "a sample has no supervised token",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The dataset file.
    pub file: PathBuf,
    /// Position of the record in the file, counted from 0.
    pub record: usize,
    /// The record's id, if it could be read.
    pub id: Option<String>,
    /// Line and column of the record, or of the fault inside it, counted from 1.
    pub at: Option<(u64, u64)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ", record {} (counted from 0)", self.record)?;
        match &self.id {
            Some(id) => write!(f, ", id `{id}`"),
            None => Ok(()),
        }
    }
}

/// One thing wrong with one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The record.
    pub place: Place,
    /// The rule it breaks.
    pub rule: Rule,
    /// What was found and what was expected.
    pub detail: String,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.rule, self.detail)
    }
}

impl From<Defect> for Error {
    fn from(defect: Defect) -> Self {
        Self {
            kind: Kind::Data,
            what: format!("{} ({})", defect.rule.summary(), defect.rule),
            place: defect.place.to_string(),
            why: defect.detail,
            hint: defect.rule.hint().into(),
        }
    }
}

/// The error for a dataset with `defects`: the first in full, some more in a line each, the rest as a number.
/// `None` if there are no defects.
pub fn report(defects: &[Defect]) -> Option<Error> {
    let (first, more) = defects.split_first()?;
    let mut error = Error::from(first.clone());
    for defect in more.iter().take(SHOWN - 1) {
        // A line end inside a detail must not start a new line of the report.
        error.why.push_str(&format!("\nalso {}", defect.to_string().replace('\n', " ")));
    }
    if defects.len() > SHOWN {
        error.why.push_str(&format!("\nand {} more", defects.len() - SHOWN));
    }
    if !more.is_empty() {
        error.hint.push_str("\ndata.on_bad_sample = \"skip\" leaves such records out");
    }
    Some(error)
}

/// The error for a dataset that is too small to keep a part of it from training.
pub fn too_few(file: &Path, records: usize) -> Error {
    Error {
        kind: Kind::Data,
        what: "the dataset cannot be divided".into(),
        place: file.display().to_string(),
        why: format!("data.validation keeps a share of it from training, and it has {records} usable records"),
        hint: "name a file of its own with data.validation, or leave that out".into(),
    }
}

/// The error for a dataset file without a single usable record.
pub fn empty(file: &Path, skipped: &[Defect]) -> Error {
    let why = match skipped.first() {
        None => "the file holds no record".into(),
        Some(first) => format!("every record was skipped, {} in all; the first:\n{first}", skipped.len()),
    };
    Error {
        kind: Kind::Data,
        what: "the dataset is empty".into(),
        place: file.display().to_string(),
        why,
        hint: "check data.train".into(),
    }
}
