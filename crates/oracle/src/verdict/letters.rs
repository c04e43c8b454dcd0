//! Dead letters: of what could not be worked on and of nothing else, for that reason, after one attempt; whatever is FAILED has
//! one; and what the parse stage's say to be redriven stands in its input once for each time.

use std::collections::{BTreeSet, HashMap, HashSet};

use millrace_events::{LetterState, State};

use super::Verdict;
use crate::evidence::{Evidence, Letter};
use crate::journal::{Act, Entry};

/// The embedder's reason for a chunk that the model refuses.
const REFUSED_BY_MODEL: &str = "CHUNK_REFUSED";
/// The stage that reads `documents.submitted`.
const PARSE: &str = "parse";

/// Ids of the requests whose revisions the model may have refused.
pub(super) fn refused(evidence: &Evidence) -> HashSet<&str> {
    let ids = evidence.journal.iter().filter_map(|entry| match entry {
        Entry::Asked {
            id,
            act: Act::Refused { .. },
            ..
        } => Some(id.as_str()),
        _ => None,
    });
    ids.collect()
}

pub(super) fn judge(evidence: &Evidence, refused: &HashSet<&str>, verdict: &mut Verdict) {
    // Of what can be read: whether the model may refuse it.
    let readable = evidence.commands.iter().filter_map(|command| {
        let (_, id) = command.asks.as_ref()?;
        Some(((command.key.as_str(), command.revision), refused.contains(id.as_str())))
    });
    let readable: HashMap<_, _> = readable.collect();
    for letter in &evidence.letters {
        let Letter {
            key,
            revision,
            reason,
            attempts,
            ..
        } = letter;
        let wrong = match readable.get(&(key.as_str(), *revision)) {
            Some(true) => reason != REFUSED_BY_MODEL,
            Some(false) => true,
            None => false,
        };
        if wrong {
            verdict.add("wrongly_dead_lettered", format!("{key}#{revision}: {reason}"));
        }
        if *attempts > 1 {
            let example = format!("{key}#{revision}: {reason} after {attempts}");
            verdict.add("attempts_burned", example);
        }
    }
    let of: BTreeSet<_> = evidence.letters.iter().map(|l| (l.key.as_str(), l.revision)).collect();
    let failed = evidence.statuses.iter().filter(|status| status.state == State::Failed);
    for status in failed.filter(|status| !of.contains(&(status.key.as_str(), status.revision))) {
        let example = format!("{}#{}: FAILED without a letter", status.key, status.revision);
        verdict.add("lost", example);
    }
    redrives(evidence, verdict);
}

fn redrives(evidence: &Evidence, verdict: &mut Verdict) {
    let redriven = |letter: &&Letter| letter.state == LetterState::Redriven && letter.stage == PARSE;
    let told = evidence.letters.iter().filter(redriven);
    let told: BTreeSet<_> = told.map(|l| (l.key.clone(), l.revision, l.redrives)).collect();
    let mut there = BTreeSet::new();
    for redrive in &evidence.redriven {
        if !there.insert(redrive.clone()) {
            verdict.add("duplicated", format!("documents.submitted: redrive {redrive:?}"));
        }
    }
    for redrive in told.symmetric_difference(&there) {
        let example = format!("only one of a redriven letter and its record: {redrive:?}");
        verdict.add("lost", example);
    }
}
