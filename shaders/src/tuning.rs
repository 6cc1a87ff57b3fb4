//! Choices that were measured on a device, as plain data: what takes the place of a rule where a device is known better.

use std::collections::BTreeMap;

/// For some problems, what was found to be fastest: by the name of the decision and the class of the problem, both as text
/// that the compiler's `tunables` write and read. What is not listed is decided by rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuning {
    choices: BTreeMap<(String, String), String>,
}

impl Tuning {
    /// What to choose, if that is known.
    pub fn get(&self, tunable: &str, class: &str) -> Option<&str> {
        self.choices.get(&(tunable.to_owned(), class.to_owned())).map(String::as_str)
    }

    /// Lists a choice, in the place of an earlier one for the same problems.
    pub fn set(&mut self, tunable: impl Into<String>, class: impl Into<String>, choice: impl Into<String>) {
        self.choices.insert((tunable.into(), class.into()), choice.into());
    }

    /// Leaves problems of a class to the rule.
    pub fn remove(&mut self, tunable: &str, class: &str) {
        self.choices.remove(&(tunable.to_owned(), class.to_owned()));
    }

    /// Whether rules decide everything.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }

    /// Number of choices.
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// Decision, class and choice of each entry, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = [&str; 3]> {
        self.choices.iter().map(|((tunable, class), choice)| [tunable.as_str(), class, choice])
    }
}
