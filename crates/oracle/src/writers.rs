//! Writers: each has documents of its own, and asks for revisions, deletions and revisions again.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::journal::Act;

/// Revisions that a writer has under way at most.
const AHEAD: usize = 4;

/// Sections, each of them a chunk, that make so many parts.
pub(crate) const TWO_PARTS: usize = 40;
const THREE_PARTS: usize = 70;

/// The documents' names.
pub fn documents(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("notes/{n}.md")).collect()
}

/// Writes on until it is told to stop. What it has asked for by then it waits for the receipt of.
pub async fn write_on(client: &Client, documents: &[String], seed: u64, stop: &CancellationToken) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut open = VecDeque::new();
    let mut number = 0;
    while !stop.is_cancelled() {
        let document = documents.choose(&mut rng).context("no documents")?;
        // One in five of several parts, and the rest of one.
        let sections = if rng.random_ratio(1, 5) { TWO_PARTS } else { 1 };
        let acts = match rng.random_range(0..100) {
            0 => {
                client.poison(document).await?;
                continue;
            }
            1 => vec![Act::Refused { sections: THREE_PARTS }],
            // Its letter is redriven when the document is gone.
            2 => vec![Act::Refused { sections: THREE_PARTS }, Act::Delete],
            3..=12 => vec![Act::Delete],
            13..=30 => vec![Act::Upsert { sections }; 2],
            31..=36 => vec![Act::Delete, Act::Upsert { sections }],
            _ => vec![Act::Upsert { sections }],
        };
        for act in acts {
            number += 1;
            open.push_back(client.ask(document, act, number).await?);
        }
        while open.len() > AHEAD {
            if let Some(oldest) = open.pop_front() {
                client.settled(&oldest.document_id, oldest.revision, stop).await?;
            }
        }
    }
    Ok(())
}
