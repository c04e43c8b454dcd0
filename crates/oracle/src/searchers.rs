//! Searchers: look for one document at a time, and judge what they see by what they were told before they looked.
//!
//! | told at any time before the search | what it must see |
//! |---|---|
//! | live revision L | hits of one revision ≥ L, or L was told too early; none only if a deletion after L was asked for before the search ended |
//! | DELETED at revision D | no hit of a revision ≤ D |
//! | an earlier search saw revision S | no hit of a revision < S |
//!
//! An answer that says it is partial counts as none. Whether all chunks of the revision were there is judged at the end,
//! when the log says how many it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_api::ingest::v1::DocumentState;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::client::{self, Client};
use crate::evidence::{Evidence, Sight};

/// Between two searches of a searcher.
const PAUSE_MS: std::ops::Range<u64> = 0..40;

/// What all searchers have seen.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    searches: usize,
    unanswered: usize,
    wrong: Vec<(Sight, String)>,
    /// Document and revision, with how many different chunks it was seen, in how many hits.
    whole: BTreeSet<(String, i64, usize, usize)>,
}

impl Sightings {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches that were answered.
    pub fn searches(&self) -> usize {
        self.seen().searches
    }

    /// Searches that were not.
    pub fn unanswered(&self) -> usize {
        self.seen().unanswered
    }

    /// All that was seen, for the verdict.
    pub fn into_evidence(&self, evidence: &mut Evidence) {
        let seen = self.seen();
        evidence.wrong = seen.wrong.clone();
        let whole = seen.whole.iter();
        evidence.whole = whole
            .map(|(id, revision, chunks, hits)| (client::key(id), *revision, *chunks, *hits))
            .collect();
    }
}

/// Searches on until it is told to stop.
pub async fn search_on(
    client: &Client,
    documents: &[String],
    sightings: &Sightings,
    seed: u64,
    stop: &CancellationToken,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut memory: BTreeMap<String, Told> = BTreeMap::new();
    while !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        // Three of four where something is about to happen.
        let recent = client.recent();
        let among = if rng.random_ratio(3, 4) { &recent[..] } else { documents };
        let document = among.choose(&mut rng).or(documents.first()).context("no documents")?;
        let answer = client.get(document).await?;
        let told = memory.entry(document.clone()).or_default();
        if let Some(answer) = answer {
            told.live = told.live.max(answer.live_revision);
            if answer.state() == DocumentState::Deleted {
                told.deleted = told.deleted.max(answer.revision);
            }
        }
        let Some(hits) = client.hits(document).await? else {
            sightings.seen().unanswered += 1;
            continue;
        };
        let deleted_after = client.may_be_deleted_after(document, told.live);
        let revisions: Vec<i64> = hits.iter().map(|hit| hit.revision).collect();
        let wrong = judge(*told, deleted_after, &revisions);
        let mut all = sightings.seen();
        all.searches += 1;
        if let Some(sight) = wrong {
            all.wrong
                .push((sight, format!("{document}: told {told:?}, now {revisions:?}")));
        } else if let Some(revision) = revisions.first() {
            let ordinals: BTreeSet<i32> = hits.iter().map(|hit| hit.ordinal).collect();
            all.whole
                .insert((document.clone(), *revision, ordinals.len(), hits.len()));
            told.seen = *revision;
        }
    }
    Ok(())
}

/// The most that was told of a document before the search, and seen: revisions, 0 for none.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    live: i64,
    deleted: i64,
    seen: i64,
}

fn judge(told: Told, deleted_after: bool, hits: &[i64]) -> Option<Sight> {
    // What a search has seen was not told of too early.
    let or_early = |sight| match told.seen < told.live {
        true => Sight::Early,
        false => sight,
    };
    let (Some(least), Some(most)) = (hits.iter().min(), hits.iter().max()) else {
        return (told.live > told.deleted && !deleted_after).then(|| or_early(Sight::None));
    };
    if least != most {
        return Some(Sight::Mixed);
    }
    if *least <= told.deleted {
        return Some(Sight::Deleted);
    }
    if *least < told.seen {
        return Some(Sight::Stale);
    }
    (*least < told.live).then_some(Sight::Early)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table() {
        let told = |live, deleted, seen| Told { live, deleted, seen };
        for (told, deleted_after, hits, wrong) in [
            (told(0, 0, 0), false, &[][..], None),
            (told(0, 0, 0), false, &[3, 3], None),
            (told(3, 0, 0), false, &[3, 3], None),
            (told(3, 0, 0), false, &[4], None),
            (told(3, 0, 0), false, &[2], Some(Sight::Early)),
            (told(3, 0, 3), false, &[2], Some(Sight::Stale)),
            (told(3, 0, 4), false, &[3], Some(Sight::Stale)),
            (told(3, 0, 0), false, &[3, 4], Some(Sight::Mixed)),
            (told(3, 0, 0), false, &[], Some(Sight::Early)),
            (told(3, 0, 3), false, &[], Some(Sight::None)),
            (told(3, 0, 0), true, &[], None),
            (told(3, 0, 0), true, &[2], Some(Sight::Early)),
            (told(4, 5, 4), true, &[], None),
            (told(4, 5, 4), true, &[4], Some(Sight::Deleted)),
            (told(4, 5, 4), true, &[6], None),
            (told(7, 5, 4), false, &[], Some(Sight::Early)),
            (told(7, 5, 7), false, &[], Some(Sight::None)),
        ] {
            assert_eq!(judge(told, deleted_after, hits), wrong, "{told:?} {hits:?}");
        }
    }
}
