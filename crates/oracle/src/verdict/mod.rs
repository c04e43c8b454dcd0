//! The verdict: a pure function of what was asked for, what the topics hold, what was seen and what the index holds.
//!
//! | finding | when |
//! |---|---|
//! | `lost` | a receipt without its command in the log; an INDEXED revision without one of its parts; a duplicate of nothing; SUPERSEDED by nothing; FAILED without a letter; a redriven letter without its record |
//! | `duplicated` | a part twice in a topic, an event twice, two effects of one request |
//! | `reordered` | a key's revisions or parts go back in a topic |
//! | `indexed_too_early`, `stale_seen`, `deleted_seen`, `mixed_seen`, `none_seen`, `partial_seen` | a search saw what it must not: [`crate::searchers`] |
//! | `wrongly_dead_lettered` | a command that every stage can work on is FAILED or a dead letter |
//! | `attempts_burned` | a dead letter took more than the one attempt that such a record takes |
//! | `never_finished` | a command without a final status, or FAILED still after its redrive; an unreadable one that is not FAILED |
//! | `unannounced` | an event without the status that says so, or the other way round |
//! | `index_differs` | a search at the end does not find exactly the last revision of a document |
//! | `audit_finds` | the audit of the index found something: points that nobody owns, above all |
//! | `canary_gap` | a partition's canary stood still for more than 30 s during the storm, outages of a broker not counted |
//! | `died_by_itself` | a service ended, and no fault had ended it |

mod letters;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use millrace_events::{Kind, State};
use serde::Serialize;

use crate::evidence::{Command, Evidence, Part, Sight};
use crate::journal::{Act, Entry};

/// Longest time that a canary may stand still, milliseconds.
pub const CANARY_GAP_MS: i64 = 30_000;
/// Examples of a finding that are kept.
const EXAMPLES: usize = 5;

/// How often something was found that must not be, and examples.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How often.
    pub count: usize,
    /// Some of them.
    pub examples: Vec<String>,
}

/// Every kind of finding, found or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Verdict(pub BTreeMap<&'static str, Finding>);

const KINDS: [&str; 17] = [
    "lost",
    "duplicated",
    "reordered",
    "indexed_too_early",
    "stale_seen",
    "deleted_seen",
    "mixed_seen",
    "none_seen",
    "partial_seen",
    "wrongly_dead_lettered",
    "attempts_burned",
    "never_finished",
    "unannounced",
    "index_differs",
    "audit_finds",
    "canary_gap",
    "died_by_itself",
];

impl Verdict {
    /// Nothing was found.
    pub fn is_clean(&self) -> bool {
        self.0.values().all(|finding| finding.count == 0)
    }

    /// Examples of a kind of finding.
    pub fn examples(&self, kind: &str) -> Vec<String> {
        let finding = self.0.get(kind);
        finding.map(|finding| finding.examples.clone()).unwrap_or_default()
    }

    /// How often each kind was found that was.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let found = self.0.iter().filter(|(_, finding)| finding.count > 0);
        found.map(|(kind, finding)| (*kind, finding.count)).collect()
    }

    fn add(&mut self, kind: &'static str, example: String) {
        let finding = self.0.entry(kind).or_default();
        finding.count += 1;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(example);
        }
    }
}

/// Judges.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict(KINDS.map(|kind| (kind, Finding::default())).into());
    let states = states(evidence);
    debts(evidence, &mut verdict);
    effects(evidence, &states, &mut verdict);
    for (topic, parts) in [
        ("documents.parsed", &evidence.parsed),
        ("chunks.embedded", &evidence.embedded),
    ] {
        let identity = |part: &Part| (part.key.clone(), part.revision, part.part, part.redrive);
        once(topic, parts.iter().map(identity), &mut verdict);
        let first = parts.iter().filter(|part| part.redrive == 0);
        let at = first.map(|part| (part.key.as_str(), (part.revision, part.part)));
        in_order(topic, at, &mut verdict);
    }
    // However often what caused it was redriven.
    let events = evidence.events.iter();
    let identities = events.clone().map(|event| (&event.key, event.revision));
    once("vectors.indexed", identities, &mut verdict);
    let first = events.filter(|event| event.redrive == 0);
    let at = first.map(|event| (event.key.as_str(), (event.revision, 0)));
    in_order("vectors.indexed", at, &mut verdict);
    let refused = letters::refused(evidence);
    commands(evidence, &states, &refused, &mut verdict);
    letters::judge(evidence, &refused, &mut verdict);
    announced(evidence, &states, &mut verdict);
    seen(evidence, &mut verdict);
    index(evidence, &states, &mut verdict);
    canary_gaps(evidence, &mut verdict);
    for (kind, told) in [
        ("never_finished", &evidence.stuck),
        ("audit_finds", &evidence.audit),
        ("died_by_itself", &evidence.deaths),
    ] {
        told.iter().for_each(|told| verdict.add(kind, told.clone()));
    }
    verdict
}

type States<'e> = HashMap<(&'e str, i64), Vec<State>>;

fn states(evidence: &Evidence) -> States<'_> {
    let mut states = States::new();
    for status in &evidence.statuses {
        let at = (status.key.as_str(), status.revision);
        states.entry(at).or_default().push(status.state);
    }
    states
}

fn has(states: &States<'_>, command: &Command, wanted: &[State]) -> bool {
    let known = states.get(&(command.key.as_str(), command.revision));
    known.is_some_and(|known| wanted.iter().any(|state| known.contains(state)))
}

/// Each receipt has its command.
fn debts(evidence: &Evidence, verdict: &mut Verdict) {
    let mut asked = HashMap::new();
    let held: HashMap<(&str, i64), &Command> = evidence
        .commands
        .iter()
        .map(|c| ((c.key.as_str(), c.revision), c))
        .collect();
    for entry in &evidence.journal {
        match entry {
            Entry::Asked { id, document, act, .. } => _ = asked.insert(id, (document, act)),
            Entry::Receipt { id, revision, .. } => {
                let Some((document, act)) = asked.get(id) else {
                    verdict.add("lost", format!("request {id} was answered and never asked"));
                    continue;
                };
                let command = held.get(&(document.as_str(), *revision));
                let matches = |command: &&&Command| match (&command.asks, act) {
                    (None, Act::Poison) => true,
                    (Some((_, request)), Act::Upsert { .. } | Act::Refused { .. } | Act::Delete) => request == id,
                    _ => false,
                };
                if command.filter(matches).is_none() {
                    verdict.add("lost", format!("{document}#{revision} of request {id}: {act:?}"));
                }
            }
        }
    }
}

/// A request has one effect, however often it was sent: a duplicate names the command that has it.
fn effects(evidence: &Evidence, states: &States<'_>, verdict: &mut Verdict) {
    let duplicates = evidence
        .statuses
        .iter()
        .filter(|status| status.state == State::DuplicateOf);
    let duplicates: HashMap<(&str, i64), i64> = duplicates
        .map(|status| ((status.key.as_str(), status.revision), status.duplicate_of))
        .collect();
    let mut effects: HashMap<(&str, &str), i64> = HashMap::new();
    for command in &evidence.commands {
        let Some((_, id)) = command.asks.as_ref().filter(|(_, id)| !id.is_empty()) else {
            continue;
        };
        let (key, revision) = (command.key.as_str(), command.revision);
        let first = effects.get(&(key, id.as_str())).copied();
        if has(states, command, &[State::DuplicateOf]) {
            let named = duplicates.get(&(key, revision)).copied();
            if named != first {
                let example = format!("{key}#{revision} is a duplicate of {named:?}, request {id} has {first:?}");
                verdict.add("lost", example);
            }
        } else if let Some(first) = effects.insert((key, id), revision) {
            verdict.add(
                "duplicated",
                format!("{key}: request {id} has revisions {first} and {revision}"),
            );
        }
    }
}

/// Nothing of a topic stands there twice.
fn once<T: Ord + Debug>(topic: &str, records: impl Iterator<Item = T>, verdict: &mut Verdict) {
    let mut all = BTreeSet::new();
    for record in records {
        if all.contains(&record) {
            verdict.add("duplicated", format!("{topic}: {record:?}"));
        }
        all.insert(record);
    }
}

/// A key's revisions and parts do not go back. Of what was not redriven: that comes when it comes.
fn in_order<'e>(topic: &str, records: impl Iterator<Item = (&'e str, (i64, i32))>, verdict: &mut Verdict) {
    let mut last: HashMap<&str, (i64, i32)> = HashMap::new();
    for (key, at) in records {
        let before = last.insert(key, at).filter(|before| *before > at);
        if let Some(before) = before {
            verdict.add("reordered", format!("{topic}: {key} goes from {before:?} to {at:?}"));
        }
    }
}

/// Each command ends, and as it must.
fn commands(evidence: &Evidence, states: &States<'_>, refused: &HashSet<&str>, verdict: &mut Verdict) {
    const ENDS: [State; 5] = [
        State::Indexed,
        State::Deleted,
        State::Failed,
        State::Superseded,
        State::DuplicateOf,
    ];
    let parts = |of: &[Part]| {
        let mut parts: HashMap<(String, i64), (i32, BTreeSet<i32>)> = HashMap::new();
        for part in of {
            let entry = parts.entry((part.key.clone(), part.revision)).or_default();
            entry.0 = part.parts;
            entry.1.insert(part.part);
        }
        parts
    };
    let (parsed, embedded) = (parts(&evidence.parsed), parts(&evidence.embedded));
    let greatest = greatest(states);
    let is_passed = |command: &Command| {
        let greatest = greatest.get(command.key.as_str());
        greatest.is_some_and(|greatest| *greatest > command.revision)
    };
    for command in &evidence.commands {
        let name = format!("{}#{}", command.key, command.revision);
        let failed = has(states, command, &[State::Failed]);
        match &command.asks {
            None if !failed => verdict.add("never_finished", format!("{name}: unreadable, and not FAILED")),
            None => {}
            Some((_, id)) if failed && !refused.contains(id.as_str()) => {
                verdict.add("wrongly_dead_lettered", format!("{name} is FAILED"));
            }
            Some(_) if failed && !has(states, command, &[State::Indexed, State::Superseded]) => {
                verdict.add("never_finished", format!("{name} is FAILED still"));
            }
            Some(_) if !has(states, command, &ENDS) => verdict.add("never_finished", name),
            Some((kind, _)) if has(states, command, &[wrong_end(*kind)]) => {
                verdict.add("lost", format!("{name}: {kind:?} ends as {:?}", wrong_end(*kind)));
            }
            Some(_) if has(states, command, &[State::Superseded]) && !is_passed(command) => {
                verdict.add("lost", format!("{name} is SUPERSEDED by nothing"));
            }
            Some(_) if has(states, command, &[State::Indexed]) => {
                let at = (command.key.clone(), command.revision);
                for (topic, parts) in [("documents.parsed", &parsed), ("chunks.embedded", &embedded)] {
                    let whole = parts
                        .get(&at)
                        .is_some_and(|(count, held)| held.iter().copied().eq(0..*count));
                    if !whole {
                        verdict.add(
                            "lost",
                            format!("{name}: {topic} holds of its parts {:?}", parts.get(&at)),
                        );
                    }
                }
            }
            Some(_) => {}
        }
    }
}

/// What a command of this kind never becomes.
fn wrong_end(kind: Kind) -> State {
    match kind {
        Kind::Delete => State::Indexed,
        _ => State::Deleted,
    }
}

/// The greatest revision of each document that became live or was deleted.
fn greatest<'e>(states: &States<'e>) -> HashMap<&'e str, i64> {
    let mut greatest = HashMap::new();
    for ((key, revision), _) in states.iter().filter(|(_, known)| became(known)) {
        let known = greatest.entry(*key).or_insert(*revision);
        *known = (*known).max(*revision);
    }
    greatest
}

fn became(known: &[State]) -> bool {
    known.contains(&State::Indexed) || known.contains(&State::Deleted)
}

/// An event for each revision that became live or was deleted, and for no other.
fn announced(evidence: &Evidence, states: &States<'_>, verdict: &mut Verdict) {
    let reached: BTreeSet<_> = states
        .iter()
        .filter(|(_, known)| became(known))
        .map(|(at, _)| *at)
        .collect();
    let events = evidence.events.iter();
    let events: BTreeSet<_> = events.map(|event| (event.key.as_str(), event.revision)).collect();
    for (key, revision) in reached.symmetric_difference(&events) {
        verdict.add("unannounced", format!("{key}#{revision}: only one of status and event"));
    }
}

fn seen(evidence: &Evidence, verdict: &mut Verdict) {
    for (sight, example) in &evidence.wrong {
        let kind = match sight {
            Sight::Early => "indexed_too_early",
            Sight::Stale => "stale_seen",
            Sight::Deleted => "deleted_seen",
            Sight::Mixed => "mixed_seen",
            Sight::None => "none_seen",
        };
        verdict.add(kind, example.clone());
    }
    let counts = chunk_counts(evidence);
    for (key, revision, chunks, hits) in &evidence.whole {
        let count = counts.get(&(key.as_str(), *revision)).copied();
        if chunks != hits || count != i32::try_from(*chunks).ok() {
            let example = format!("{key}#{revision}: {hits} hits of {chunks} chunks, of {count:?}");
            verdict.add("partial_seen", example);
        }
    }
}

fn chunk_counts(evidence: &Evidence) -> HashMap<(&str, i64), i32> {
    let parsed = evidence.parsed.iter();
    parsed
        .map(|part| ((part.key.as_str(), part.revision), part.chunk_count))
        .collect()
}

/// How many points the index holds once every clean-up is over: a head of each document, and the chunks of live ones.
pub fn points(evidence: &Evidence) -> i64 {
    let counts = chunk_counts(evidence);
    let mut live: HashMap<&str, (i64, i64)> = HashMap::new();
    for status in &evidence.statuses {
        let chunks = match status.state {
            State::Indexed => counts
                .get(&(status.key.as_str(), status.revision))
                .copied()
                .unwrap_or(0),
            State::Deleted => 0,
            _ => continue,
        };
        let known = live.entry(&status.key).or_insert((status.revision, 0));
        if status.revision >= known.0 {
            *known = (status.revision, i64::from(chunks));
        }
    }
    live.values().map(|(_, chunks)| chunks + 1).sum()
}

/// The index holds the last revision of each document, whole, and nothing else of it.
fn index(evidence: &Evidence, states: &States<'_>, verdict: &mut Verdict) {
    let counts = chunk_counts(evidence);
    let mut last: BTreeMap<&str, &Command> = BTreeMap::new();
    for command in &evidence.commands {
        let takes_effect = command.asks.is_some() && !has(states, command, &[State::DuplicateOf]);
        let newest = last
            .get(command.key.as_str())
            .is_none_or(|known| known.revision < command.revision);
        if takes_effect && newest {
            last.insert(&command.key, command);
        }
    }
    for (key, held) in &evidence.index {
        let expected: BTreeSet<(i64, i32)> = match last.get(key.as_str()) {
            Some(command) if matches!(command.asks, Some((Kind::Upsert, _))) => {
                let count = counts.get(&(key.as_str(), command.revision)).copied().unwrap_or(0);
                (0..count).map(|ordinal| (command.revision, ordinal)).collect()
            }
            _ => BTreeSet::new(),
        };
        if held.len() != expected.len() || held.iter().copied().collect::<BTreeSet<_>>() != expected {
            let held: BTreeMap<i64, usize> = held.iter().fold(BTreeMap::new(), |mut held, (revision, _)| {
                *held.entry(*revision).or_default() += 1;
                held
            });
            let wanted = last.get(key.as_str()).map(|command| (command.revision, expected.len()));
            verdict.add(
                "index_differs",
                format!("{key}: chunks by revision {held:?}, expected {wanted:?}"),
            );
        }
    }
}

fn canary_gaps(evidence: &Evidence, verdict: &mut Verdict) {
    for Standstill {
        key,
        until_ms,
        counted_ms,
        ..
    } in standstills(evidence)
    {
        if counted_ms > CANARY_GAP_MS {
            let found = format!("{key}: {counted_ms} ms before {until_ms}, outages not counted");
            verdict.add("canary_gap", found);
        }
    }
}

/// The longest that any canary stood still during the storm, outages of brokers and all.
pub fn longest_standstill_ms(evidence: &Evidence) -> i64 {
    standstills(evidence).iter().map(|gap| gap.whole_ms).max().unwrap_or(0)
}

struct Standstill<'e> {
    key: &'e str,
    until_ms: i64,
    whole_ms: i64,
    /// Without the outages of brokers.
    counted_ms: i64,
}

fn standstills(evidence: &Evidence) -> Vec<Standstill<'_>> {
    let (start, end) = evidence.storm;
    let mut all = Vec::new();
    for key in &evidence.canaries {
        let indexed = evidence
            .statuses
            .iter()
            .filter(|status| status.key == *key && status.state == State::Indexed);
        let during = indexed
            .map(|status| status.at_ms)
            .filter(|at_ms| (start..end).contains(at_ms));
        let mut times: Vec<i64> = during.chain([start, end]).collect();
        times.sort_unstable();
        all.extend(times.windows(2).map(|pair| {
            let outages = evidence.outages.iter();
            let away: i64 = outages.map(|outage| overlap((pair[0], pair[1]), *outage)).sum();
            let whole_ms = pair[1] - pair[0];
            Standstill {
                key,
                until_ms: pair[1],
                whole_ms,
                counted_ms: whole_ms - away,
            }
        }));
    }
    all
}

fn overlap(one: (i64, i64), other: (i64, i64)) -> i64 {
    (one.1.min(other.1) - one.0.max(other.0)).max(0)
}

#[cfg(test)]
mod tests;
