//! What is left when the storm is over: the topics, `read_committed`, and what searches find; with what was seen before it is
//! all that is judged.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_events::headers::REVISION;
use millrace_events::{
    ChunksEmbedded, DeadLetter, DocumentParsed, DocumentStatus, DocumentSubmitted, Epoch, Kind, LetterState, Record,
    Revision, State, VectorsIndexed,
};
use millrace_flow::{Delivery, Failure};
use millrace_testkit::log::{self, key_of, redrive};
use millrace_testkit::poll;
use millrace_testkit::stack::Addresses;

use crate::client::{self, Client};
use crate::journal::{Entry, Journal};

/// For a search to be answered when nothing goes on any more.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What a search must not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// An older revision than the one that was said to be live, or nothing, and no search has seen that one yet.
    Early,
    /// A revision older than one that was seen before.
    Stale,
    /// A revision that was deleted before.
    Deleted,
    /// Chunks of two revisions.
    Mixed,
    /// Nothing, of a document that was live.
    None,
}

/// A record of `documents.submitted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// `tenant/document_id`.
    pub key: String,
    /// By its offset.
    pub revision: i64,
    /// What it asks for, with its request id; none if it cannot be read.
    pub asks: Option<(Kind, String)>,
}

/// A record of `documents.parsed` or `chunks.embedded`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `tenant/document_id`.
    pub key: String,
    /// Of the document.
    pub revision: i64,
    /// From 0.
    pub part: i32,
    /// How many parts the revision has.
    pub parts: i32,
    /// Chunks of the whole revision.
    pub chunk_count: i32,
    /// How often it was redriven.
    pub redrive: i32,
    /// When it was written, milliseconds since 1970 UTC.
    pub at_ms: i64,
}

/// A record of `vectors.indexed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `tenant/document_id`.
    pub key: String,
    /// Of the document.
    pub revision: i64,
    /// How often what caused it was redriven.
    pub redrive: i32,
}

/// A record of `documents.failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// `tenant/document_id`.
    pub key: String,
    /// Of the document.
    pub revision: i64,
    /// Why it was given up.
    pub reason: String,
    /// The stage that gave it up.
    pub stage: String,
    /// What became of the letter.
    pub state: LetterState,
    /// How often it was redriven.
    pub redrives: i32,
    /// Attempts that were burned before it was given up.
    pub attempts: i32,
    /// When it came to this state, milliseconds since 1970 UTC.
    pub at_ms: i64,
}

/// A record of `documents.status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `tenant/document_id`.
    pub key: String,
    /// Of the document.
    pub revision: i64,
    /// What it has come to.
    pub state: State,
    /// Milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// With DUPLICATE_OF: the revision that has the effect.
    pub duplicate_of: i64,
}

/// What is judged. Records in the order of their partitions.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The journal.
    pub journal: Vec<Entry>,
    /// `documents.submitted`.
    pub commands: Vec<Command>,
    /// What was redriven into `documents.submitted`: key, revision, how often.
    pub redriven: Vec<(String, i64, i32)>,
    /// `documents.parsed`.
    pub parsed: Vec<Part>,
    /// `chunks.embedded`.
    pub embedded: Vec<Part>,
    /// `vectors.indexed`.
    pub events: Vec<Event>,
    /// `documents.status`.
    pub statuses: Vec<Status>,
    /// `documents.failed`.
    pub letters: Vec<Letter>,
    /// What searches must not have seen.
    pub wrong: Vec<(Sight, String)>,
    /// Document, revision, how many different chunks of it a search saw, and in how many hits.
    pub whole: Vec<(String, i64, usize, usize)>,
    /// A fresh document that did not pass when the faults had ended.
    pub stuck: Vec<String>,
    /// What the audit of the index has found at the end.
    pub audit: Vec<String>,
    /// What a search finds of each document at the end: revision and ordinal of each chunk.
    pub index: BTreeMap<String, Vec<(i64, i32)>>,
    /// From when to when the storm lasted, milliseconds since 1970 UTC.
    pub storm: (i64, i64),
    /// When the broker was away, milliseconds since 1970 UTC.
    pub outages: Vec<(i64, i64)>,
    /// `tenant/document_id` of the canaries.
    pub canaries: Vec<String>,
    /// Ends of services that no fault explains.
    pub deaths: Vec<String>,
}

/// All records of a topic, with what each says; none for those that nobody can read.
async fn read<R: Record>(addresses: &Addresses) -> Result<Vec<(Delivery, Option<R>)>> {
    let decoded = log::decode::<R>(addresses).await?.into_iter();
    let readable = decoded.map(|(delivery, record)| match record {
        Ok(record) => Ok((delivery, Some(record))),
        Err(Failure::Invalid { .. }) => Ok((delivery, None)),
        Err(failure) => Err(failure).with_context(|| format!("read {}", R::TOPIC.name)),
    });
    readable.collect()
}

/// All that the topics say, and the journal.
pub async fn topics(addresses: &Addresses, journal: &Journal) -> Result<Evidence> {
    let (mut commands, mut redriven) = (Vec::new(), Vec::new());
    for (delivery, record) in read::<DocumentSubmitted>(addresses).await? {
        // What is redriven is no command of its own.
        if redrive(&delivery) > 0 {
            let revision = delivery
                .headers
                .get_str(REVISION)
                .and_then(|revision| revision.parse().ok());
            redriven.push((key_of(&delivery), revision.unwrap_or(0), redrive(&delivery)));
            continue;
        }
        commands.push(Command {
            key: key_of(&delivery),
            revision: Revision::new(Epoch::FIRST, delivery.origin.offset)?.get(),
            asks: record.map(|record| (record.kind, record.request_id)),
        });
    }
    let parsed = read::<DocumentParsed>(addresses).await?.into_iter();
    let parsed = parsed.filter_map(|(at, r)| r.map(|r| part(&at, (r.revision, r.part, r.parts), r.chunk_count)));
    let embedded = read::<ChunksEmbedded>(addresses).await?.into_iter();
    let embedded = embedded.filter_map(|(at, r)| r.map(|r| part(&at, (r.revision, r.part, r.parts), r.chunk_count)));
    let events = read::<VectorsIndexed>(addresses).await?.into_iter();
    let statuses = read::<DocumentStatus>(addresses).await?.into_iter();
    let document = |tenant: &str, id: &str| format!("{tenant}/{id}");
    let letters = read::<DeadLetter>(addresses).await?.into_iter();
    Ok(Evidence {
        journal: journal.entries(),
        commands,
        redriven,
        parsed: parsed.collect(),
        embedded: embedded.collect(),
        events: events
            .filter_map(|(at, r)| {
                r.map(|r| Event {
                    key: key_of(&at),
                    revision: r.revision,
                    redrive: redrive(&at),
                })
            })
            .collect(),
        statuses: statuses
            .filter_map(|(_, r)| r)
            .map(|r| Status {
                key: document(&r.tenant, &r.document_id),
                revision: r.revision,
                state: r.state,
                at_ms: r.updated_at_ms,
                duplicate_of: r.duplicate_of_revision,
            })
            .collect(),
        letters: letters
            .filter_map(|(_, r)| r)
            .map(|r| Letter {
                key: document(&r.tenant, &r.document_id),
                revision: r.revision,
                reason: r.reason,
                stage: r.stage,
                state: r.state,
                redrives: r.redrives,
                attempts: r.attempts,
                at_ms: r.updated_at_ms,
            })
            .collect(),
        ..Evidence::default()
    })
}

fn part(at: &Delivery, (revision, part, parts): (i64, i32, i32), chunk_count: i32) -> Part {
    Part {
        key: key_of(at),
        revision,
        part,
        parts,
        chunk_count,
        redrive: redrive(at),
        at_ms: at.timestamp_ms,
    }
}

/// What a search finds of each document: revision and ordinal of each chunk.
pub async fn index(client: &Client, documents: &[String]) -> Result<BTreeMap<String, Vec<(i64, i32)>>> {
    let mut index = BTreeMap::new();
    for document in documents {
        let hits = poll::until("the index to answer", ANSWERED_WITHIN, async || {
            Ok(client.hits(document).await?.ok_or_else(|| document.clone()))
        })
        .await?;
        let chunks = hits.iter().map(|hit| (hit.revision, hit.ordinal)).collect();
        index.insert(client::key(document), chunks);
    }
    Ok(index)
}
