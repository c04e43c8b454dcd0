//! Reads what is left when the storm is over: the topics, `read_committed`, and the index.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use millrace_events::{
    ChunksEmbedded, DeadLetter, DocumentParsed, DocumentStatus, DocumentSubmitted, Epoch, Record, Revision,
    VectorsIndexed,
};
use millrace_flow::{Delivery, Failure};
use millrace_runtime::codec::Codec;
use millrace_schema::Registry;
use millrace_testkit::log;
use millrace_testkit::stack::Addresses;

use crate::searchers;
use crate::verdict::{Command, Evidence, Part, Status};
use crate::writers::{self, Desk};

/// All records of a topic, with what each says; none for those that nobody can read.
async fn read<R: Record>(addresses: &Addresses) -> Result<Vec<(Delivery, Option<R>)>> {
    let codec = Codec::connect(Registry::new(&addresses.registry)?, &[], &[R::TOPIC]).await?;
    let mut records = Vec::new();
    for delivery in log::records(&addresses.kafka, R::TOPIC.name).await? {
        let Some(value) = delivery.value.clone() else { continue };
        let record = match codec.decode::<R>(&value).await {
            Ok(record) => Some(record),
            Err(Failure::Invalid { .. }) => None,
            Err(failure) => return Err(failure).with_context(|| format!("read {}", R::TOPIC.name)),
        };
        records.push((delivery, record));
    }
    Ok(records)
}

fn key(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.key.as_deref().unwrap_or_default()).into_owned()
}

/// All that the topics say.
pub async fn topics(addresses: &Addresses) -> Result<Evidence> {
    let mut commands = Vec::new();
    for (delivery, record) in read::<DocumentSubmitted>(addresses).await? {
        commands.push(Command {
            key: key(&delivery),
            revision: Revision::new(Epoch::FIRST, delivery.origin.offset)?.get(),
            asks: record.map(|record| (record.kind, record.request_id)),
        });
    }
    let parsed = read::<DocumentParsed>(addresses).await?.into_iter();
    let parsed = parsed.filter_map(|(at, r)| r.map(|r| part(&at, r.revision, (r.part, r.parts), r.chunk_count)));
    let embedded = read::<ChunksEmbedded>(addresses).await?.into_iter();
    let embedded = embedded.filter_map(|(at, r)| r.map(|r| part(&at, r.revision, (r.part, r.parts), r.chunk_count)));
    let events = read::<VectorsIndexed>(addresses).await?.into_iter();
    let statuses = read::<DocumentStatus>(addresses).await?.into_iter();
    let document = |tenant: &str, id: &str| format!("{tenant}/{id}");
    let letters = read::<DeadLetter>(addresses).await?.into_iter();
    Ok(Evidence {
        commands,
        parsed: parsed.collect(),
        embedded: embedded.collect(),
        events: events.filter_map(|(at, r)| r.map(|r| (key(&at), r.revision))).collect(),
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
            .map(|r| (document(&r.tenant, &r.document_id), r.revision, r.reason))
            .collect(),
        ..Evidence::default()
    })
}

fn part(at: &Delivery, revision: i64, (part, parts): (i32, i32), chunk_count: i32) -> Part {
    Part {
        key: key(at),
        revision,
        part,
        parts,
        chunk_count,
    }
}

/// What a search finds of each document: revision and ordinal of each chunk.
pub async fn index(desk: &Desk, vector: &[f32], documents: &[String]) -> Result<BTreeMap<String, Vec<(i64, i32)>>> {
    let mut index = BTreeMap::new();
    for document in documents {
        let hits = searchers::hits(desk, vector, document).await?;
        let hits = hits.with_context(|| format!("the index does not answer for {document}"))?;
        let chunks = hits.iter().map(|hit| (hit.revision, hit.ordinal)).collect();
        index.insert(writers::key(document), chunks);
    }
    Ok(index)
}
