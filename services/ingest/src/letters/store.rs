//! Letters on disk: their states by key, and in the order in which they were given up.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, ControlFlow};

use millrace_events::headers::TRACEPARENT;
use millrace_events::{DeadLetter, DocumentKey, IdError, LetterKey, LetterState, TraceContext};
use millrace_flow::Delivery;
use redb::{TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::skip::Skip;
use super::{LetterError, Store};
use crate::replica::store::access;
use crate::replica::{Change, ChangeOf, Kept, StoreError};

/// State of each letter by key.
const LETTERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("letters");
/// Keys by the time at which they were first given up.
const TIMES: TableDefinition<'_, (i64, &str), ()> = TableDefinition::new("times");
/// Open letters that one job takes: about 100 bytes of memory each.
pub const MAX_LETTERS: usize = 1_000_000;

/// State of one letter, as its newest record says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The record.
    pub record: DeadLetter,
    /// Partition of `documents.failed` that it stands in.
    pub partition: i32,
    /// Trace of its document; none when the record carried none.
    pub traceparent: Option<String>,
}

impl Letter {
    /// Trace of its document.
    pub fn trace(&self) -> Option<TraceContext> {
        self.traceparent.as_deref()?.parse().ok()
    }
}

/// A place in the list of letters: when it was first given up, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(pub i64, pub LetterKey);

/// Some letters of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The last given up first.
    pub letters: Vec<Letter>,
    /// Behind which the next page begins; none after the last.
    pub next: Option<Mark>,
}

/// Letters of one stage, reason and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The stage that gave them up.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// What became of them.
    pub state: LetterState,
    /// How many.
    pub letters: u64,
    /// When the first of them was first given up.
    pub first_failed_at_ms: i64,
    /// When the last of them was first given up.
    pub last_failed_at_ms: i64,
}

/// What a job is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Letters that the filter selects.
    pub matched: u64,
    /// Those that it passes over.
    pub skipped: BTreeMap<Skip, u64>,
    /// The others.
    pub open: HashSet<LetterKey>,
}

/// `documents.failed`, as it is kept.
#[derive(Debug)]
pub struct Letters;

impl Kept for Letters {
    type Record = DeadLetter;
    type Key = LetterKey;
    type Entry = Letter;
    const FILE: &'static str = "letters.redb";
    const FORMAT: i64 = 1;

    fn key(key: &[u8]) -> Result<LetterKey, IdError> {
        LetterKey::from_bytes(key)
    }
    fn key_of(record: &DeadLetter) -> Result<LetterKey, IdError> {
        record.key()
    }
    fn entry(record: DeadLetter, delivery: &Delivery) -> Letter {
        Letter {
            record,
            partition: delivery.origin.partition,
            traceparent: delivery.headers.get_str(TRACEPARENT).map(str::to_owned),
        }
    }
    fn document(_: &ChangeOf<Self>) -> Option<DocumentKey> {
        None
    }
    fn reset(write: &WriteTransaction) -> Result<(), redb::Error> {
        write.delete_table(LETTERS)?;
        write.delete_table(TIMES)?;
        write.open_table(LETTERS)?;
        write.open_table(TIMES)?;
        Ok(())
    }
    fn apply(write: &WriteTransaction, changes: &[ChangeOf<Self>]) -> Result<(), StoreError> {
        let failed = "store a letter";
        let mut letters = write.open_table(LETTERS).map_err(access(failed))?;
        let mut times = write.open_table(TIMES).map_err(access(failed))?;
        for change in changes {
            let (key, entry) = match change {
                // Records that do not belong to their key were refused before they came here.
                Change::Put { entry, .. } => match entry.record.key() {
                    Ok(key) => (key.to_string(), Some(entry)),
                    Err(_) => continue,
                },
                Change::Remove(key) => (key.to_string(), None),
            };
            let old = match letters.remove(key.as_str()).map_err(access(failed))? {
                Some(old) => Some(serde_json::from_slice::<Letter>(old.value())?),
                None => None,
            };
            if let Some(old) = old {
                times
                    .remove((old.record.failed_at_ms, key.as_str()))
                    .map_err(access(failed))?;
            }
            if let Some(entry) = entry {
                let value = serde_json::to_vec(entry)?;
                letters.insert(key.as_str(), value.as_slice()).map_err(access(failed))?;
                times
                    .insert((entry.record.failed_at_ms, key.as_str()), ())
                    .map_err(access(failed))?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// The state of one letter.
    pub fn letter(&self, key: &LetterKey) -> Result<Option<Letter>, StoreError> {
        let failed = "read a letter";
        let letters = self.begin_read(failed)?.open_table(LETTERS).map_err(access(failed))?;
        let found = letters.get(key.to_string().as_str()).map_err(access(failed))?;
        Ok(found.map(|value| serde_json::from_slice(value.value())).transpose()?)
    }

    /// Up to `size` letters that a filter selects, behind `after`.
    pub fn page(&self, filter: &Filter, after: Option<Mark>, size: usize) -> Result<Page, StoreError> {
        let mut page = Page::default();
        self.scan(filter, after, |letter| {
            if page.letters.len() == size {
                let last = page.letters.last().map(|last: &Letter| &last.record);
                page.next = last.and_then(|last| Some(Mark(last.failed_at_ms, last.key().ok()?)));
                return ControlFlow::Break(());
            }
            page.letters.push(letter);
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    /// How many letters a filter selects, by stage, reason and state; the largest count first.
    pub fn summary(&self, filter: &Filter) -> Result<Vec<Count>, StoreError> {
        let mut counts: BTreeMap<(String, String, u8), Count> = BTreeMap::new();
        self.scan(filter, None, |Letter { record, .. }| {
            let at_ms = record.failed_at_ms;
            let state = record.state;
            let count = counts
                .entry((record.stage.clone(), record.reason.clone(), state as u8))
                .or_insert_with(|| Count {
                    stage: record.stage,
                    reason: record.reason,
                    state,
                    letters: 0,
                    first_failed_at_ms: at_ms,
                    last_failed_at_ms: at_ms,
                });
            count.letters += 1;
            count.first_failed_at_ms = count.first_failed_at_ms.min(at_ms);
            count.last_failed_at_ms = count.last_failed_at_ms.max(at_ms);
            ControlFlow::Continue(())
        })?;
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_by_key(|count| std::cmp::Reverse(count.letters));
        Ok(counts)
    }

    /// What a job has to do with the letters that a filter selects; `skip` says which are passed over.
    pub fn plan(&self, filter: &Filter, skip: impl Fn(&DeadLetter) -> Option<Skip>) -> Result<Plan, LetterError> {
        let mut plan = Plan::default();
        self.scan(filter, None, |Letter { record, .. }| {
            plan.matched += 1;
            match skip(&record) {
                Some(skip) => *plan.skipped.entry(skip).or_default() += 1,
                None => plan.open.extend(record.key().ok()),
            }
            if plan.open.len() > MAX_LETTERS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if plan.open.len() > MAX_LETTERS {
            return Err(LetterError::TooMany { max: MAX_LETTERS });
        }
        Ok(plan)
    }

    /// Shows the letters that a filter selects, the last given up first.
    fn scan(
        &self,
        filter: &Filter,
        after: Option<Mark>,
        mut show: impl FnMut(Letter) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let failed = "list letters";
        let read = self.begin_read(failed)?;
        let letters = read.open_table(LETTERS).map_err(access(failed))?;
        let times = read.open_table(TIMES).map_err(access(failed))?;
        let after = after.map(|Mark(at_ms, key)| (at_ms, key.to_string()));
        let first = Bound::Included((filter.since_ms.unwrap_or(i64::MIN), ""));
        let until = filter
            .until_ms
            .map_or(Bound::Unbounded, |until| Bound::Excluded((until, "")));
        let last = match &after {
            // A page token from a query with a later bound is of no use: the filter decides.
            Some((at_ms, key)) if filter.until_ms.is_none_or(|until| *at_ms < until) => {
                Bound::Excluded((*at_ms, key.as_str()))
            }
            _ => until,
        };
        if let (Bound::Included(first), Bound::Excluded(last)) = (first, last)
            && first >= last
        {
            return Ok(());
        }
        for entry in times.range((first, last)).map_err(access(failed))?.rev() {
            let (at, _) = entry.map_err(access(failed))?;
            let (_, key) = at.value();
            let Some(found) = letters.get(key).map_err(access(failed))? else {
                continue;
            };
            let letter: Letter = serde_json::from_slice(found.value())?;
            if filter.selects(&letter.record) && show(letter).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
