//! Texts that wait for the model, and which of them run next. Plain data: no channel, no clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::BatchLimits;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for the answer: runs before documents.
    Query,
    /// Chunks of documents.
    Document,
}

/// One text that waits.
#[derive(Debug)]
pub struct Item<T> {
    /// Its length in tokens.
    pub tokens: usize,
    /// When it came.
    pub since: Instant,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What it is.
    pub work: T,
}

/// What to do now that the model is idle.
#[derive(Debug)]
pub enum Next<T> {
    /// Run these, longest row first or last: their order means nothing.
    Run(Vec<Item<T>>),
    /// Wait for company, but not past this time.
    WaitUntil(Instant),
    /// Nothing waits.
    Idle,
}

/// A row that is more than half padding is not worth its place beside the others.
const MAX_PADDING: usize = 2;
/// After so many batches of queries in a row one of documents runs, if any wait.
const QUERY_BATCHES_IN_A_ROW: usize = 8;

/// Every so many batches of documents the oldest text goes first, whoever's it is.
const TURN_OF_THE_OLDEST: u64 = 8;
/// What a token costs at weight 1.
const TOKEN: u64 = 1 << 16;

/// What waits, oldest first in each class.
#[derive(Debug)]
pub struct Waiting<T> {
    limits: BatchLimits,
    queries: Vec<Item<T>>,
    documents: Vec<Item<T>>,
    turns: Turns,
    /// Parts of a batch that the model computes at once.
    streams: usize,
    tokens: usize,
    query_batches: usize,
}

/// Whose text of a document goes first: tenants take turns, paid for by tokens.
#[derive(Debug, Default)]
struct Turns {
    /// What each tenant that waits has had, in [`TOKEN`]s by its weight, counted from where the others were when it came.
    served: HashMap<Arc<str>, u64>,
    /// What whoever had the last turn had had before.
    clock: u64,
    batches: u64,
}

impl Turns {
    /// Whose turn it is: that of the tenant which has had least, or every eighth time of the oldest.
    fn next<T>(&mut self, documents: &[Item<T>]) -> usize {
        self.batches += 1;
        // By tenant, the place of its oldest text.
        let mut oldest: HashMap<&Arc<str>, usize> = HashMap::new();
        for (at, item) in documents.iter().enumerate() {
            oldest.entry(&item.tenant).or_insert(at);
        }
        self.served.retain(|tenant, _| oldest.contains_key(tenant));
        let turns = oldest.into_iter().map(|(tenant, at)| {
            let served = *self.served.entry(tenant.clone()).or_insert(self.clock);
            (served, at)
        });
        let Some((served, at)) = turns.min() else { return 0 };
        self.clock = served;
        if self.batches.is_multiple_of(TURN_OF_THE_OLDEST) {
            0
        } else {
            at
        }
    }

    fn pay<T>(&mut self, batch: &[Item<T>], weights: &BTreeMap<String, u32>) {
        for item in batch {
            let weight = weights.get(&*item.tenant).copied().unwrap_or(1).max(1);
            let cost = TOKEN * item.tokens as u64 / u64::from(weight);
            *self.served.entry(item.tenant.clone()).or_insert(self.clock) += cost;
        }
    }
}

impl<T> Waiting<T> {
    /// Nothing waits yet.
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            queries: Vec::new(),
            documents: Vec::new(),
            turns: Turns::default(),
            streams: 1,
            tokens: 0,
            query_batches: 0,
        }
    }
    /// From now on, batches are for a model that computes so many parts of one at once.
    pub fn for_streams(&mut self, streams: usize) {
        self.streams = streams.max(1);
    }
    /// Whether more of a class may be taken in. What is taken in then may be one request's worth above the bound.
    /// Queries have as much again as documents: they are not kept out by what they are to overtake.
    pub fn has_room(&self, class: Class) -> bool {
        let bound = match class {
            Class::Document => self.limits.max_waiting_tokens,
            Class::Query => self.limits.max_waiting_tokens.saturating_mul(2),
        };
        self.tokens < bound
    }
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.documents.is_empty()
    }
    /// Puts a text behind the others of its class.
    pub fn push(&mut self, class: Class, item: Item<T>) {
        self.tokens += item.tokens;
        match class {
            Class::Query => self.queries.push(item),
            Class::Document => self.documents.push(item),
        }
    }
    /// Drops what nobody waits for any more.
    pub fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        for class in [&mut self.queries, &mut self.documents] {
            class.retain(|item| wanted(&item.work));
        }
        self.recount();
    }

    /// What runs next.
    ///
    /// | what waits | next |
    /// |---|---|
    /// | nothing | idle |
    /// | queries | a batch of queries, at once |
    /// | queries and documents, after 8 batches of queries in a row | a batch of documents |
    /// | documents for a full batch, or one that has waited its time | a batch of documents |
    /// | fewer, all young | wait |
    pub fn next(&mut self, now: Instant) -> Next<T> {
        let starved = !self.documents.is_empty() && self.query_batches >= QUERY_BATCHES_IN_A_ROW;
        if !self.queries.is_empty() && !starved {
            self.query_batches += 1;
            let batch = cut(&mut self.queries, 0, &self.limits, self.streams);
            self.recount();
            return Next::Run(batch);
        }
        let Some(oldest) = self.documents.first() else {
            self.query_batches = 0;
            return Next::Idle;
        };
        let deadline = oldest.since + self.limits.max_wait();
        if self.is_full() || starved || deadline <= now {
            Next::Run(self.cut_documents())
        } else {
            Next::WaitUntil(deadline)
        }
    }

    /// What runs after what runs now: a full batch of documents, if no query waits.
    pub fn next_of_documents(&mut self) -> Option<Vec<Item<T>>> {
        if !self.queries.is_empty() || !self.is_full() {
            return None;
        }
        Some(self.cut_documents())
    }

    fn cut_documents(&mut self) -> Vec<Item<T>> {
        self.query_batches = 0;
        let first = self.turns.next(&self.documents);
        let batch = cut(&mut self.documents, first, &self.limits, self.streams);
        self.turns.pay(&batch, &self.limits.tenant_weights);
        self.recount();
        batch
    }

    fn is_full(&self) -> bool {
        let tokens: usize = self.documents.iter().map(|item| item.tokens).sum();
        tokens >= self.limits.max_batch_tokens || self.documents.len() >= self.limits.max_batch_texts
    }

    fn recount(&mut self) {
        self.tokens = self.queries.iter().chain(&self.documents).map(|item| item.tokens).sum();
    }
}

/// Takes one text and those nearest to it in length, as many as the limits allow. Since it is the oldest of somebody whose
/// turn it is, no length waits for ever, however many of other lengths come.
///
/// Each stream gets one, however long they are: what is left out for the sake of the budget would leave a stream idle. Where there
/// are more texts than streams they are a multiple of those: with one more, all streams but one would wait for it.
fn cut<T>(items: &mut Vec<Item<T>>, first: usize, limits: &BatchLimits, streams: usize) -> Vec<Item<T>> {
    let mut by_length: Vec<usize> = (0..items.len()).collect();
    // Older before younger of the same length: the sort is stable.
    by_length.sort_by_key(|&at| items[at].tokens);
    let Some(anchor) = by_length.iter().position(|&at| at == first) else {
        return Vec::new();
    };
    let tokens = |place: usize| items[by_length[place]].tokens;
    let away = |length: usize| length.abs_diff(tokens(anchor));
    // The batch is by_length[from..to]; its longest row is its last.
    let (mut from, mut to) = (anchor, anchor + 1);
    let fits = |rows: usize, longest: usize| {
        let within = rows.saturating_mul(longest) <= limits.max_batch_tokens;
        rows <= limits.max_batch_texts && (within || rows <= streams)
    };
    loop {
        let rows = to - from + 1;
        let longer = (to < by_length.len()).then(|| tokens(to));
        let longer = longer.filter(|&longest| longest <= MAX_PADDING * tokens(from) && fits(rows, longest));
        let shorter = (from > 0).then(|| tokens(from - 1));
        let shorter = shorter.filter(|&short| tokens(to - 1) <= MAX_PADDING * short && fits(rows, tokens(to - 1)));
        match (shorter, longer) {
            (Some(short), Some(long)) if away(short) < away(long) => from -= 1,
            (_, Some(_)) => to += 1,
            (Some(_), None) => from -= 1,
            (None, None) => break,
        }
    }
    while to - from > streams && !(to - from).is_multiple_of(streams) {
        let longest_goes = from == anchor || (to - 1 > anchor && away(tokens(to - 1)) >= away(tokens(from)));
        match longest_goes {
            true => to -= 1,
            false => from += 1,
        }
    }
    let mut chosen = by_length[from..to].to_vec();
    chosen.sort_unstable();
    let mut chosen = chosen.into_iter().peekable();
    let (mut batch, mut rest) = (Vec::with_capacity(to - from), Vec::with_capacity(items.len()));
    for (at, item) in items.drain(..).enumerate() {
        match chosen.next_if_eq(&at) {
            Some(_) => batch.push(item),
            None => rest.push(item),
        }
    }
    *items = rest;
    batch
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
