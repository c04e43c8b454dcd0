//! What a check says.

use serde::Serialize;

use crate::avro::{Problem, Rule};
use crate::compat::Mode;

/// Something between a reader and a writer. Its path leads into the reader's schema.
pub type Mismatch = Problem;

/// Who reads whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    /// The candidate reads what the previous version wrote.
    Backward,
    /// The previous version reads what the candidate writes.
    Forward,
    /// The candidate by itself.
    Candidate,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Who reads whom.
    pub direction: Direction,
    /// The name of the version compared with; the candidate's own where it stands by itself.
    pub against: String,
    /// See [`Mismatch`].
    pub path: String,
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong, in words.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Finding {
    pub(crate) fn new(direction: Direction, against: &str, mismatch: Mismatch) -> Self {
        let Mismatch {
            path,
            rule,
            message,
            remedy,
        } = mismatch;
        Self {
            direction,
            against: against.to_owned(),
            path,
            rule,
            message,
            remedy,
        }
    }
}

/// The two verdicts on a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The mode that was asked for.
    pub mode: Mode,
    /// What a registry says: false for an invalid candidate too.
    pub compatible: bool,
    /// Whether the candidate is a schema.
    pub candidate_valid: bool,
    /// What a registry lets through although consumers break or data is lost.
    pub risks: Vec<Finding>,
    /// Why it is not compatible.
    pub findings: Vec<Finding>,
}
