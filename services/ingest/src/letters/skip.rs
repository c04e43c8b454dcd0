//! Which letters are passed over, and why.

use std::time::Duration;

use millrace_events::topics::{self, Topic};
use millrace_events::{DeadLetter, LetterState, Revision};

/// A deletion is remembered by the index for 45 days. What is older could bring a document back that was deleted since.
pub const OLDEST: Duration = Duration::from_secs(45 * 24 * 60 * 60);

/// Why a letter is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// It is redriven or discarded already.
    NotOpen,
    /// It was redriven as often as it may be.
    RedrivenTooOften,
    /// See [`OLDEST`].
    TooOld,
    /// Its revision is not known: with a new one it would pass for newer than it is.
    RevisionUnknown,
    /// Nobody knows where it would have to go.
    StageUnknown,
    /// Its original was too large for `documents.dlq`.
    OriginalOmitted,
    /// Its original no longer stands in `documents.dlq`.
    OriginalGone,
    /// Its original had no key.
    KeyAbsent,
    /// Kafka refuses the redriven record.
    Refused,
    /// It stood in a lane that is not configured any more: nobody would read it there.
    LaneUnknown,
}

/// Topic that a stage reads.
pub fn input_of(stage: &str) -> Option<Topic> {
    match stage {
        "parse" => Some(topics::SUBMITTED),
        "embed" => Some(topics::PARSED),
        "index" => Some(topics::EMBEDDED),
        _ => None,
    }
}

/// Why a letter is not redriven, as far as its state tells. The first row that fits counts.
///
/// | letter | |
/// |---|---|
/// | not OPEN | `NotOpen` |
/// | redriven `max_redrives` times | `RedrivenTooOften` |
/// | accepted, or first given up, more than 45 days ago | `TooOld` |
/// | without a revision | `RevisionUnknown` |
/// | of a stage that this build does not know | `StageUnknown` |
///
/// Both times count: what a redriven record became may be given up in a later stage for the first time.
pub fn from_redrive(letter: &DeadLetter, max_redrives: i32, now_ms: i64) -> Option<Skip> {
    let oldest_ms = now_ms - i64::try_from(OLDEST.as_millis()).unwrap_or(i64::MAX);
    let before = |at_ms: i64| at_ms != 0 && at_ms < oldest_ms;
    if letter.state != LetterState::Open {
        Some(Skip::NotOpen)
    } else if letter.redrives >= max_redrives {
        Some(Skip::RedrivenTooOften)
    } else if before(letter.accepted_at_ms) || before(letter.failed_at_ms) {
        Some(Skip::TooOld)
    } else if Revision::from_i64(letter.revision).is_err() {
        Some(Skip::RevisionUnknown)
    } else if input_of(&letter.stage).is_none() {
        Some(Skip::StageUnknown)
    } else {
        None
    }
}

/// Why a letter is not discarded.
pub fn from_discard(letter: &DeadLetter) -> Option<Skip> {
    (letter.state != LetterState::Open).then_some(Skip::NotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::revision;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn open() -> DeadLetter {
        DeadLetter {
            state: LetterState::Open,
            revision: revision(7).get(),
            redrives: 2,
            stage: "index".into(),
            accepted_at_ms: NOW_MS - OLDEST.as_millis() as i64,
            failed_at_ms: NOW_MS,
            ..DeadLetter::default()
        }
    }

    /// The rows of [`from_redrive`]'s table.
    #[test]
    fn what_is_passed_over_and_why() {
        assert_eq!(from_redrive(&open(), 3, NOW_MS), None);
        type Change = fn(&mut DeadLetter);
        let rows: [(Change, Skip); 8] = [
            (|l| l.state = LetterState::Redriven, Skip::NotOpen),
            (|l| l.state = LetterState::Discarded, Skip::NotOpen),
            (|l| l.state = LetterState::Unknown, Skip::NotOpen),
            (|l| l.redrives = 3, Skip::RedrivenTooOften),
            (|l| l.accepted_at_ms -= 1, Skip::TooOld),
            (
                |l| (l.accepted_at_ms, l.failed_at_ms) = (0, l.accepted_at_ms - 1),
                Skip::TooOld,
            ),
            (|l| l.revision = 0, Skip::RevisionUnknown),
            (|l| l.stage = "enrich".into(), Skip::StageUnknown),
        ];
        for (change, skip) in rows {
            let mut letter = open();
            change(&mut letter);
            assert_eq!(from_redrive(&letter, 3, NOW_MS), Some(skip), "{letter:?}");
        }
        let mut unknown_times = open();
        (unknown_times.accepted_at_ms, unknown_times.failed_at_ms) = (0, 0);
        assert_eq!(from_redrive(&unknown_times, 3, NOW_MS), None);
    }

    #[test]
    fn whatever_is_open_can_be_discarded() {
        let mut letter = DeadLetter {
            state: LetterState::Open,
            ..DeadLetter::default()
        };
        assert_eq!(from_discard(&letter), None);
        letter.state = LetterState::Redriven;
        assert_eq!(from_discard(&letter), Some(Skip::NotOpen));
    }

    #[test]
    fn each_stage_has_the_input_that_it_reads() {
        let inputs = ["parse", "embed", "index", "enrich"].map(|stage| input_of(stage).map(|topic| topic.name));
        let expected = [
            Some("documents.submitted"),
            Some("documents.parsed"),
            Some("chunks.embedded"),
            None,
        ];
        assert_eq!(inputs, expected);
    }
}
