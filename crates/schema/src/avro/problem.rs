//! What is wrong, where, and what to do about it.

use serde::Serialize;

pub use super::rule::Rule;

/// One thing that is wrong with a schema, or between two of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where in the (reader's) schema: `/fields/chunks/items/fields/text/type`, with fields by name and branches of a
    /// union by number. Empty for the schema as a whole.
    pub path: String,
    /// Which rule is broken.
    pub rule: Rule,
    /// What is wrong, in words, naming both sides.
    pub message: String,
    /// What to do, in one sentence.
    pub remedy: &'static str,
}

impl Problem {
    pub(crate) fn new(rule: Rule, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            rule,
            message: message.into(),
            remedy: rule.remedy(),
        }
    }
}
