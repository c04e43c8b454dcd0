use millrace_events::LetterState;

use super::*;
use crate::evidence::{Event, Letter, Status};

const DOCUMENT: &str = "chaos/d";

fn command(revision: i64, kind: Kind, id: &str) -> Command {
    Command {
        key: DOCUMENT.into(),
        revision,
        asks: Some((kind, id.into())),
    }
}

fn part(revision: i64, part: i32) -> Part {
    Part {
        key: DOCUMENT.into(),
        revision,
        part,
        parts: 2,
        chunk_count: 3,
        redrive: 0,
        at_ms: 0,
    }
}

fn redriven(of: Part) -> Part {
    Part { redrive: 1, ..of }
}

fn event(revision: i64) -> Event {
    Event {
        key: DOCUMENT.into(),
        revision,
        redrive: 0,
    }
}

fn letter(revision: i64, attempts: i32) -> Letter {
    Letter {
        key: DOCUMENT.into(),
        revision,
        reason: "CHUNK_REFUSED".into(),
        stage: "parse".into(),
        state: LetterState::Open,
        redrives: 0,
        attempts,
        at_ms: 0,
    }
}

fn entries(revision: i64, id: &str, act: Act) -> [Entry; 2] {
    let asked = Entry::Asked {
        id: id.into(),
        document: DOCUMENT.into(),
        act,
        at_ms: 0,
    };
    let receipt = Entry::Receipt {
        id: id.into(),
        revision,
        at_ms: 1,
    };
    [asked, receipt]
}

fn status(revision: i64, state: State) -> Status {
    Status {
        key: DOCUMENT.into(),
        revision,
        state,
        at_ms: 10 * revision,
        duplicate_of: 0,
    }
}

fn duplicate(revision: i64, duplicate_of: i64) -> Status {
    Status {
        duplicate_of,
        ..status(revision, State::DuplicateOf)
    }
}

fn redriven_letter(revision: i64) -> Letter {
    Letter {
        state: LetterState::Redriven,
        redrives: 1,
        ..letter(revision, 1)
    }
}

/// A storm, and when the only canary was INDEXED in it.
fn canary(evidence: &mut Evidence, storm: (i64, i64), at: &[i64]) {
    (evidence.storm, evidence.canaries) = (storm, vec!["canaries/0".into()]);
    for at_ms in at {
        evidence.events.push(Event {
            key: "canaries/0".into(),
            ..event(*at_ms)
        });
        evidence.statuses.push(Status {
            key: "canaries/0".into(),
            at_ms: *at_ms,
            ..status(*at_ms, State::Indexed)
        });
    }
}

/// A revision of two parts, an update and a poison record between them: as it must be.
fn clean() -> Evidence {
    let upsert = Act::Upsert { sections: 3 };
    let poison = Command {
        asks: None,
        ..command(2, Kind::Upsert, "")
    };
    Evidence {
        journal: [
            entries(1, "a", upsert),
            entries(2, "b", Act::Poison),
            entries(3, "c", upsert),
        ]
        .concat(),
        commands: vec![command(1, Kind::Upsert, "a"), poison, command(3, Kind::Upsert, "c")],
        parsed: vec![part(1, 0), part(1, 1), part(3, 0), part(3, 1)],
        embedded: vec![part(1, 0), part(1, 1), part(3, 0), part(3, 1)],
        events: vec![event(1), event(3)],
        statuses: vec![
            status(1, State::Parsed),
            status(1, State::Indexed),
            status(2, State::Failed),
            status(3, State::Indexed),
        ],
        letters: vec![letter(2, 1)],
        whole: vec![(DOCUMENT.into(), 1, 3, 3)],
        index: [(DOCUMENT.to_owned(), vec![(3, 0), (3, 1), (3, 2)])].into(),
        ..Evidence::default()
    }
}

fn found(evidence: &Evidence) -> Vec<&'static str> {
    let verdict = judge(evidence);
    verdict
        .0
        .into_iter()
        .filter(|(_, finding)| finding.count > 0)
        .map(|(kind, _)| kind)
        .collect()
}

#[test]
fn what_is_as_it_must_be_is_clean() {
    let verdict = judge(&clean());
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.0.len(), KINDS.len());
}

type Change = fn(&mut Evidence);

#[test]
fn each_row_of_the_table() {
    let rows: [(&[&str], Change); 40] = [
        (&["lost"], |e| _ = e.commands.remove(1)),
        (&["lost"], |e| e.journal.extend(entries(1, "z", Act::Delete))),
        (&["lost"], |e| _ = e.parsed.remove(0)),
        (&["lost"], |e| _ = e.embedded.remove(3)),
        (&["duplicated"], |e| e.parsed.push(part(3, 1))),
        (&["duplicated"], |e| e.embedded.insert(1, part(1, 0))),
        (&["duplicated"], |e| e.events.push(event(3))),
        (&["duplicated"], |e| {
            e.commands.push(command(4, Kind::Upsert, "c"));
            e.statuses.push(status(4, State::Indexed));
            e.events.push(event(4));
            e.parsed.extend([part(4, 0), part(4, 1)]);
            e.embedded.extend([part(4, 0), part(4, 1)]);
            e.index.clear();
        }),
        (&["reordered"], |e| e.embedded.swap(0, 1)),
        (&["reordered"], |e| e.events.swap(0, 1)),
        (&["stale_seen"], |e| e.wrong.push((Sight::Stale, String::new()))),
        (&["deleted_seen"], |e| e.wrong.push((Sight::Deleted, String::new()))),
        (&["mixed_seen"], |e| e.wrong.push((Sight::Mixed, String::new()))),
        (&["none_seen"], |e| e.wrong.push((Sight::None, String::new()))),
        (&["partial_seen"], |e| e.whole.push((DOCUMENT.into(), 3, 2, 3))),
        (&["wrongly_dead_lettered"], |e| {
            e.statuses.push(status(3, State::Failed));
            e.letters.push(letter(3, 1));
        }),
        (&["wrongly_dead_lettered"], |e| e.letters.push(letter(3, 1))),
        (&["attempts_burned"], |e| e.letters.push(letter(2, 2))),
        (&["never_finished"], |e| e.stuck.push(String::new())),
        (&["audit_finds"], |e| e.audit.push(String::new())),
        (&["indexed_too_early"], |e| e.wrong.push((Sight::Early, String::new()))),
        (&["never_finished"], |e| {
            e.journal.extend(entries(3, "c", Act::Refused { sections: 3 }));
            e.statuses.pop();
            e.statuses.push(status(3, State::Failed));
            e.letters.push(letter(3, 1));
            e.events.pop();
        }),
        (&["lost"], |e| e.letters.clear()),
        (&["lost"], |e| {
            e.statuses.pop();
            e.statuses.push(status(3, State::Superseded));
            e.events.pop();
        }),
        (&["lost"], |e| e.letters.push(redriven_letter(2))),
        (&["duplicated"], |e| {
            e.letters.push(redriven_letter(2));
            e.redriven = vec![(DOCUMENT.into(), 2, 1); 2];
        }),
        (&["wrongly_dead_lettered"], |e| {
            e.journal.extend(entries(3, "c", Act::Refused { sections: 3 }));
            e.letters.push(Letter {
                reason: "PROCESS_DIED".into(),
                ..letter(3, 1)
            });
        }),
        (&["duplicated"], |e| {
            e.events.push(Event { redrive: 1, ..event(3) });
        }),
        (&["duplicated"], |e| {
            e.parsed.extend([redriven(part(3, 1)), redriven(part(3, 1))])
        }),
        (&["never_finished"], |e| _ = e.statuses.remove(2)),
        (&["never_finished", "unannounced"], |e| _ = e.statuses.remove(3)),
        (&["unannounced"], |e| _ = e.events.pop()),
        (&["index_differs"], |e| {
            e.index = [(DOCUMENT.into(), vec![(3, 0), (3, 1), (3, 2), (1, 0)])].into()
        }),
        (&["canary_gap"], |e| canary(e, (0, 50_000), &[5_000, 40_000])),
        (&["canary_gap"], |e| canary(e, (0, 50_000), &[35_000])),
        (&["canary_gap"], |e| canary(e, (0, 50_000), &[15_000])),
        (&["canary_gap"], |e| canary(e, (0, 50_000), &[])),
        // Nothing has the effect that it names.
        (&["lost"], |e| {
            e.commands.push(command(4, Kind::Upsert, "d"));
            e.statuses.push(duplicate(4, 3));
        }),
        (&["lost"], |e| {
            e.commands.push(command(4, Kind::Upsert, "c"));
            e.statuses.push(duplicate(4, 1));
        }),
        (&["died_by_itself"], |e| e.deaths.push(String::new())),
    ];
    for (at, (kinds, change)) in rows.into_iter().enumerate() {
        let mut evidence = clean();
        change(&mut evidence);
        assert_eq!(found(&evidence), kinds, "row {at}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let rows: [Change; 5] = [
        // Refused by the model, and redriven when it no longer was.
        |e| {
            e.journal.extend(entries(3, "c", Act::Refused { sections: 3 }));
            e.statuses.insert(3, status(3, State::Failed));
            e.letters.push(letter(3, 1));
            e.parsed.push(redriven(part(3, 1)));
            e.embedded = vec![part(1, 0), part(1, 1), part(3, 0), redriven(part(3, 1))];
        },
        // Sent twice, one effect.
        |e| {
            e.commands.push(command(4, Kind::Upsert, "c"));
            e.statuses.push(duplicate(4, 3));
        },
        // Never answered: it counts once or not at all.
        |e| e.journal.extend(entries(9, "z", Act::Delete).into_iter().take(1)),
        // Deleted, and the index empty.
        |e| {
            e.commands.push(command(4, Kind::Delete, "d"));
            e.statuses.push(status(4, State::Deleted));
            e.events.push(event(4));
            e.index = [(DOCUMENT.to_owned(), Vec::new())].into();
        },
        // The broker was away meanwhile.
        |e| {
            canary(e, (0, 50_000), &[1_000, 40_000]);
            e.outages = vec![(5_000, 12_000), (20_000, 25_000)];
        },
    ];
    for (at, change) in rows.into_iter().enumerate() {
        let mut evidence = clean();
        change(&mut evidence);
        assert_eq!(found(&evidence), [""; 0], "row {at}");
    }
}
