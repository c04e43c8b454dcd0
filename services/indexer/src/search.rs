//! Finding chunks: the read side of the heads.
//!
//! A search is one or more rounds of: query the engine, read the heads of the documents hit, keep the hits that equal
//! their head. The head that a search meets first counts for that document until the search ends (it is **pinned**):
//! a switch in the middle is not seen. The points of a pinned revision stay until longer than the longest search
//! deadline after the next one went live ([`crate::sweep`]), so they can be asked for again.
//!
//! A round's query may have run while a revision was being written or shown, and seen half of it. Such a document has
//! a head that was first met in this round and either is young (`sweep` still set: it may have moved after the query
//! began) or made hits be dropped. Then the next round asks again: that query begins after the heads were read, and
//! every point of a pinned revision was there before its head.
//!
//! | after a round | then |
//! |---|---|
//! | k hits remain (or the engine had no more), all documents among them certain | done |
//! | k hits remain, but a document among them was first met now and is young, or had a hit dropped | again |
//! | fewer than k remain and the engine had more | again, wider |
//! | in every further round | documents that had a hit dropped are asked for at their pinned revision only |
//! | the deadline or the last round is reached | what is certain so far, `partial` |

use std::collections::HashMap;
use std::time::Duration;

use millrace_events::{DocumentKey, Revision, Tenant};
use millrace_failpoints::mutants;
use tokio::time::Instant;

use crate::index::{Filter, Found, Head, IndexError, Query, VectorIndex};

/// Rounds before a search gives up on documents that keep changing under it.
const MAX_ROUNDS: usize = 16;
/// How much wider the next query is when too few hits remained.
const WIDER: usize = 4;
/// After each query, and before the next, of a search that is slow on purpose.
const SLOW: Duration = Duration::from_millis(300);
/// Widest query.
const MAX_LIMIT: usize = 16_384;

/// What is looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Whose documents. Never crossed.
    pub tenant: Tenant,
    /// The query's vector, of the collection's dimensions.
    pub vector: Vec<f32>,
    /// How many hits at most.
    pub k: usize,
    /// Only hits with at least this score.
    pub min_score: Option<f32>,
    /// Only these documents; empty means all.
    pub documents: Vec<DocumentKey>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Best first; equal scores by document, then ordinal.
    pub hits: Vec<Found>,
    /// The deadline ended the search before it was complete.
    pub partial: bool,
}

/// Searches one collection until `deadline`, which is at most the longest search deadline of the configuration.
pub async fn search(index: &dyn VectorIndex, wanted: Wanted, deadline: Instant) -> Result<Answer, IndexError> {
    let mut pins = Pins::default();
    let mut limit = wanted.k;
    let mut certain = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let query = Query {
            vector: wanted.vector.clone(),
            filter: Filter {
                tenant: wanted.tenant.clone(),
                documents: wanted.documents.clone(),
                pinned: pins.restricted(),
            },
            limit,
            min_score: wanted.min_score,
        };
        let Ok(round) = tokio::time::timeout_at(deadline, pins.round(index, query, wanted.k)).await else {
            return Ok(partial(certain));
        };
        let round = round?;
        let enough = round.hits.len() >= wanted.k || round.exhausted;
        if enough && !round.uncertain || mutants::ONE_QUERY.is_active() {
            return Ok(Answer {
                hits: round.hits,
                partial: false,
            });
        }
        if !enough {
            limit = (limit * WIDER).min(MAX_LIMIT);
        }
        certain = round.hits;
        certain.retain(|hit| pins.is_certain(&hit.document));
        slow().await;
    }
    Ok(partial(certain))
}

/// What a document may become while a search is between two of its steps, it becomes in a search that is slow.
async fn slow() {
    if mutants::SLOW_SEARCH.is_active() {
        tokio::time::sleep(SLOW).await;
    }
}

fn partial(hits: Vec<Found>) -> Answer {
    Answer { hits, partial: true }
}

/// The revision at which a search sees a document.
#[derive(Debug, Clone, Copy)]
struct Pin {
    /// None: deleted, or not live yet.
    revision: Option<Revision>,
    /// The last query began after the head had moved.
    certain: bool,
    /// A hit of another revision was met: ask for the pinned one only.
    restrict: bool,
}

#[derive(Debug, Default)]
struct Pins(HashMap<DocumentKey, Pin>);

struct Round {
    /// The best k that equal their pins.
    hits: Vec<Found>,
    /// A document among the best k may have been seen in half.
    uncertain: bool,
    /// The engine had fewer than it was asked for.
    exhausted: bool,
}

impl Pins {
    async fn round(&mut self, index: &dyn VectorIndex, query: Query, k: usize) -> Result<Round, IndexError> {
        // What is pinned now was pinned before this query begins.
        self.0.values_mut().for_each(|pin| pin.certain = true);
        let limit = query.limit;
        let mut found = index.search(query).await?;
        slow().await;
        let exhausted = found.len() < limit;
        found.sort_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            by_score.then_with(|| (&a.document, a.ordinal).cmp(&(&b.document, b.ordinal)))
        });
        let mut unmet: Vec<DocumentKey> = found.iter().map(|hit| hit.document.clone()).collect();
        unmet.sort_unstable();
        unmet.dedup();
        unmet.retain(|document| !self.0.contains_key(document));
        let heads = index.heads(unmet.clone()).await?;
        for document in unmet {
            let pin = Pin::at(heads.get(&document));
            self.0.insert(document, pin);
        }
        Ok(self.sift(found, k, exhausted))
    }

    fn sift(&mut self, found: Vec<Found>, k: usize, exhausted: bool) -> Round {
        let (mut hits, mut uncertain) = (Vec::with_capacity(k.min(found.len())), false);
        for hit in found {
            let Some(pin) = self.0.get_mut(&hit.document) else {
                continue;
            };
            if pin.revision == Some(hit.revision) {
                uncertain |= !pin.certain;
                hits.push(hit);
            } else {
                // First met in this round at another revision than its head's: ask again.
                uncertain |= !pin.restrict;
                pin.restrict = true;
            }
            if hits.len() == k {
                break;
            }
        }
        Round {
            hits,
            uncertain,
            exhausted,
        }
    }

    fn restricted(&self) -> Vec<(DocumentKey, Option<Revision>)> {
        let restricted = self.0.iter().filter(|(_, pin)| pin.restrict);
        restricted
            .map(|(document, pin)| (document.clone(), pin.revision))
            .collect()
    }

    fn is_certain(&self, document: &DocumentKey) -> bool {
        self.0.get(document).is_some_and(|pin| pin.certain)
    }
}

impl Pin {
    fn at(head: Option<&Head>) -> Self {
        Self {
            revision: head.filter(|head| !head.deleted).map(|head| head.live),
            // A head without a clean-up to come is older than the longest search.
            certain: head.is_some_and(|head| !head.sweep),
            restrict: false,
        }
    }
}

/// The time a search has: what the caller gave, at most `longest`.
pub fn deadline(given: Option<Duration>, longest: Duration) -> Instant {
    Instant::now() + given.map_or(longest, |given| given.min(longest))
}
