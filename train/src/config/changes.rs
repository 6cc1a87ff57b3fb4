//! What has changed between two configurations.

use super::keys::{self, Config, Key, Resume};
use super::render::value_text;

/// A key that has another value, or whose value now leads to something else.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `section.name`.
    pub key: String,
    /// The value before.
    pub before: String,
    /// The value now.
    pub now: String,
}

/// What a comparison is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Every difference, for a reader.
    All,
    /// What keeps a run from being the same run; see [`Resume`].
    Resume,
}

/// The keys that differ, in the order of the documentation.
pub fn changes(before: &Config, now: &Config, subject: Subject) -> Vec<Change> {
    let counts = |key: &&Key| subject == Subject::All || key.resume == Resume::Fixed;
    let compare = |key: &Key| {
        let text = |config: &Config| config.get(key).map_or_else(|| "unset".into(), |value| value_text(&value));
        let (before, now) = (text(before), text(now));
        (before != now).then(|| Change { key: key.path(), before, now })
    };
    keys::all().filter(counts).filter_map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_numbers_stands_in_the_way_of_resuming() {
        let before = Config::default();
        let mut now = before.clone();
        now.train.lr = 1e-3;
        now.train.save_every = 7;
        now.output.dir = "elsewhere".into();
        now.model.path = "moved".into();
        now.model.adapter = Some("a".into());
        let names = |subject| changes(&before, &now, subject).into_iter().map(|c| c.key).collect::<Vec<_>>();
        assert_eq!(names(Subject::Resume), ["model.adapter", "train.lr"]);
        assert_eq!(names(Subject::All).len(), 5);
        let change = &changes(&before, &now, Subject::Resume)[1];
        assert_eq!((change.before.as_str(), change.now.as_str()), ("2e-4", "0.001"));
    }
}
