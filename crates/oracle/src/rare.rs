//! Paths that a run may miss: a verdict says nothing of what it never came by.
//!
//! | path | how it is seen |
//! |---|---|
//! | `revoked_in_mid_revision` | the parts of a revision were embedded before and after a fault of an embedder |
//! | `aborted_after_offsets` | an aborted transaction had sent positions: the broker's index of aborted ones, of `__consumer_offsets` |
//! | `unknown_commit` | the broker's answer to a commit was lost on its way |
//! | `redrive_after_delete` | a letter was redriven after its document had been deleted |
//! | `quarantine` | a partition ran its records one at a time |

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use millrace_events::{Kind, LetterState, State};

use crate::evidence::Evidence;
use crate::faults::{Fault, LOST_COMMIT};

/// Bytes of an entry in the broker's index of aborted transactions.
const ABORTED_ENTRY_BYTES: u64 = 34;

/// How often each path was taken.
pub fn count(
    evidence: &Evidence,
    faults: &[Fault],
    quarantines: u64,
    stack: &Path,
) -> Result<BTreeMap<&'static str, u64>> {
    let lost = faults.iter().filter(|fault| fault.name == LOST_COMMIT).count();
    Ok(BTreeMap::from([
        ("revoked_in_mid_revision", revoked_in_mid_revision(evidence, faults)),
        ("aborted_after_offsets", aborted_after_offsets(stack)?),
        ("unknown_commit", lost as u64),
        ("redrive_after_delete", redrives_after_delete(evidence)),
        ("quarantine", quarantines),
    ]))
}

fn revoked_in_mid_revision(evidence: &Evidence, faults: &[Fault]) -> u64 {
    let mut spans: HashMap<(&str, i64), (i64, i64)> = HashMap::new();
    for part in evidence.embedded.iter().filter(|part| part.redrive == 0) {
        let span = spans
            .entry((&part.key, part.revision))
            .or_insert((part.at_ms, part.at_ms));
        *span = (span.0.min(part.at_ms), span.1.max(part.at_ms));
    }
    let of_embedder = |fault: &&Fault| fault.of.starts_with("embedder") && fault.name != LOST_COMMIT;
    let faults: Vec<_> = faults.iter().filter(of_embedder).collect();
    let hit = |span: &(i64, i64)| {
        faults
            .iter()
            .any(|fault| span.0 <= fault.from_ms && fault.from_ms < span.1)
    };
    spans.values().filter(|span| hit(span)).count() as u64
}

fn redrives_after_delete(evidence: &Evidence) -> u64 {
    let deleted = |key: &str, revision: i64, at_ms: i64| {
        let mut deletes = evidence.commands.iter().filter(|command| {
            let deletes = matches!(command.asks, Some((Kind::Delete, _)));
            deletes && command.key == key && command.revision > revision
        });
        deletes.any(|delete| {
            evidence.statuses.iter().any(|status| {
                let of_it = status.revision == delete.revision && status.key == key;
                of_it && status.state == State::Deleted && status.at_ms < at_ms
            })
        })
    };
    let redriven = evidence
        .letters
        .iter()
        .filter(|letter| letter.state == LetterState::Redriven);
    redriven
        .filter(|letter| deleted(&letter.key, letter.revision, letter.at_ms))
        .count() as u64
}

/// The broker keeps a list of aborted transactions beside each segment of a partition.
fn aborted_after_offsets(stack: &Path) -> Result<u64> {
    let mut most = 0;
    for part in fs::read_dir(stack).with_context(|| format!("read {}", stack.display()))? {
        let part = part?;
        if !part.file_name().to_string_lossy().starts_with("kafka") {
            continue;
        }
        let mut bytes = 0;
        for partition in fs::read_dir(part.path())? {
            let partition = partition?;
            if !partition
                .file_name()
                .to_string_lossy()
                .starts_with("__consumer_offsets-")
            {
                continue;
            }
            for file in fs::read_dir(partition.path())? {
                let file = file?;
                if file.path().extension().is_some_and(|extension| extension == "txnindex") {
                    bytes += file.metadata()?.len();
                }
            }
        }
        // Replicas have the same.
        most = most.max(bytes / ABORTED_ENTRY_BYTES);
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Command, Letter, Part, Status};

    fn part(part: i32, at_ms: i64) -> Part {
        Part {
            key: "t/d".into(),
            revision: 1,
            part,
            parts: 2,
            chunk_count: 40,
            redrive: 0,
            at_ms,
        }
    }

    #[test]
    fn a_fault_between_two_parts_counts() {
        let evidence = Evidence {
            embedded: vec![part(0, 10), part(1, 20)],
            ..Evidence::default()
        };
        let fault = |of: &str, from_ms, until_ms| Fault {
            name: "kill",
            of: of.into(),
            from_ms,
            until_ms,
        };
        for (fault, count) in [
            (fault("embedder", 12, 15), 1),
            (fault("embedder-1", 12, 25), 1),
            (fault("embedder", 5, 15), 0),
            (fault("indexer", 12, 15), 0),
            (fault("embedder", 21, 25), 0),
            (fault("embedder", 1, 9), 0),
        ] {
            assert_eq!(
                revoked_in_mid_revision(&evidence, std::slice::from_ref(&fault)),
                count,
                "{fault:?}"
            );
        }
    }

    #[test]
    fn a_redrive_after_the_deletion_counts() {
        let letter = |state, at_ms| Letter {
            key: "t/d".into(),
            revision: 1,
            reason: "X".into(),
            stage: "embed".into(),
            state,
            redrives: 1,
            attempts: 1,
            at_ms,
        };
        let deletion = Command {
            key: "t/d".into(),
            revision: 2,
            asks: Some((Kind::Delete, "r".into())),
        };
        let deleted = Status {
            key: "t/d".into(),
            revision: 2,
            state: State::Deleted,
            at_ms: 10,
            duplicate_of: 0,
        };
        let evidence = |letter| Evidence {
            commands: vec![deletion.clone()],
            statuses: vec![deleted.clone()],
            letters: vec![letter],
            ..Evidence::default()
        };
        for (letter, count) in [
            (letter(LetterState::Redriven, 11), 1),
            (letter(LetterState::Redriven, 9), 0),
            (letter(LetterState::Open, 11), 0),
        ] {
            assert_eq!(redrives_after_delete(&evidence(letter.clone())), count, "{letter:?}");
        }
    }

    #[test]
    fn aborted_positions_are_counted_in_the_brokers_files() {
        let stack = tempfile::tempdir().unwrap();
        let partition = stack.path().join("kafka/__consumer_offsets-3");
        fs::create_dir_all(&partition).unwrap();
        fs::create_dir_all(stack.path().join("kafka/documents.parsed-0")).unwrap();
        fs::write(partition.join("0.txnindex"), [0; 68]).unwrap();
        fs::write(stack.path().join("kafka/documents.parsed-0/0.txnindex"), [0; 34]).unwrap();
        assert_eq!(aborted_after_offsets(stack.path()).unwrap(), 2);
    }
}
