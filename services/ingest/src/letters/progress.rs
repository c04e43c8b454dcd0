//! How far a redrive or a discard is.

use std::collections::BTreeMap;

use super::skip::Skip;

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Letters that the filter selects.
    pub matched: u64,
    /// Letters redriven or discarded; in a dry run, those that would be.
    pub done: u64,
    /// Letters passed over, by why.
    pub skipped: BTreeMap<Skip, u64>,
    /// All of `matched` are either done or skipped.
    pub finished: bool,
}

impl Progress {
    /// Passes letters over.
    pub(super) fn skip(&mut self, skip: Skip, letters: u64) {
        if letters > 0 {
            *self.skipped.entry(skip).or_default() += letters;
        }
    }
}
