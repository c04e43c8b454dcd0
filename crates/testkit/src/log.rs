//! Topics, read `read_committed`, and the promises that can be read off them.

use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use anyhow::{Context, Result, ensure};
use millrace_events::{ChunksEmbedded, DocumentParsed, DocumentStatus, IndexEvent, Record, State, VectorsIndexed};
use millrace_flow::Delivery;
use millrace_kafka::{Admin, KafkaConfig, TailConfig, TailEvent};
use millrace_runtime::codec::Codec;
use millrace_schema::Registry;

use crate::stack::Addresses;

/// All committed records of a topic, in order within each partition.
pub async fn records(kafka: &str, topic: &str) -> Result<Vec<Delivery>> {
    let kafka = KafkaConfig {
        bootstrap_servers: kafka.to_owned(),
        ..KafkaConfig::default()
    };
    let topics = Admin::new(&kafka)?.topics().await?;
    let known = topics.iter().find(|known| known.name == topic);
    let partitions = known.with_context(|| format!("there is no topic {topic}"))?.partitions;
    let config = TailConfig {
        topic: topic.to_owned(),
        ..TailConfig::default()
    };
    let mut tail = millrace_kafka::tail(&kafka, config)?;
    let (mut records, mut ended) = (Vec::new(), BTreeSet::new());
    while ended.len() < usize::try_from(partitions)? {
        let next = tail.next().await;
        match next.with_context(|| format!("{topic} cannot be read"))? {
            TailEvent::CaughtUp { partition, .. } => _ = ended.insert(partition),
            TailEvent::Record(delivery) => records.push(delivery),
        }
    }
    Ok(records)
}

/// All committed records of a record type's topic, in order within each partition.
pub async fn read<R: Record>(addresses: &Addresses) -> Result<Vec<(Delivery, R)>> {
    let codec = Codec::connect(Registry::new(&addresses.registry)?, &[], &[R::TOPIC]).await?;
    let mut decoded = Vec::new();
    for delivery in records(&addresses.kafka, R::TOPIC.name).await? {
        let Some(value) = delivery.value.clone() else { continue };
        decoded.push((delivery, codec.decode::<R>(&value).await?));
    }
    Ok(decoded)
}

/// What a check of the topics has seen, for a test to say that it was not nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    /// Parts in `documents.parsed`.
    pub parsed: usize,
    /// Parts in `chunks.embedded`.
    pub embedded: usize,
    /// Events in `vectors.indexed`.
    pub indexed: usize,
}

/// Each (document, revision, part) once in `documents.parsed` and `chunks.embedded`, the same parts in both; an event once
/// in `vectors.indexed` for each revision that ever had the status INDEXED or DELETED, and for no other; revisions rising
/// per key everywhere, parts in order.
pub async fn check(addresses: &Addresses) -> Result<Seen> {
    let parsed = read::<DocumentParsed>(addresses).await?;
    let embedded = read::<ChunksEmbedded>(addresses).await?;
    let indexed = read::<VectorsIndexed>(addresses).await?;
    let statuses = read::<DocumentStatus>(addresses).await?;
    let part = |key: &Delivery, revision, part| (key_of(key), revision, part);
    let parsed: Vec<_> = parsed.iter().map(|(key, r)| part(key, r.revision, r.part)).collect();
    let embedded: Vec<_> = embedded.iter().map(|(key, r)| part(key, r.revision, r.part)).collect();
    let live: Vec<_> = indexed
        .iter()
        .map(|(key, r)| part(key, r.revision, i32::from(r.event == IndexEvent::Deleted)))
        .collect();
    once("documents.parsed", &parsed)?;
    once("chunks.embedded", &embedded)?;
    once("vectors.indexed", &live)?;
    for (topic, records) in [
        ("documents.parsed", &parsed),
        ("chunks.embedded", &embedded),
        ("vectors.indexed", &live),
    ] {
        rising(topic, records)?;
    }
    let (one, other): (BTreeSet<_>, BTreeSet<_>) = (parsed.iter().collect(), embedded.iter().collect());
    let missing: Vec<_> = one.symmetric_difference(&other).take(5).collect();
    ensure!(
        missing.is_empty(),
        "parts that stand in only one of documents.parsed and chunks.embedded: {missing:?}"
    );
    let announced: BTreeSet<_> = live
        .iter()
        .map(|(key, revision, _)| format!("{key}#{revision}"))
        .collect();
    let became = |status: &DocumentStatus| matches!(status.state, State::Indexed | State::Deleted);
    let reached: BTreeSet<_> = statuses
        .iter()
        .filter(|(_, s)| became(s))
        .map(|(key, _)| key_of(key))
        .collect();
    let odd: Vec<_> = announced.symmetric_difference(&reached).take(5).collect();
    ensure!(
        odd.is_empty(),
        "revisions with only one of an event and a status that says so: {odd:?}"
    );
    Ok(Seen {
        parsed: parsed.len(),
        embedded: embedded.len(),
        indexed: live.len(),
    })
}

fn key_of(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.key.as_deref().unwrap_or_default()).into_owned()
}

fn once<T: Hash + Eq + std::fmt::Debug>(topic: &str, records: &[T]) -> Result<()> {
    let mut counts: HashMap<&T, usize> = HashMap::new();
    records
        .iter()
        .for_each(|record| *counts.entry(record).or_default() += 1);
    let twice: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 1).take(5).collect();
    ensure!(twice.is_empty(), "{topic} holds records more than once: {twice:?}");
    Ok(())
}

fn rising(topic: &str, records: &[(String, i64, i32)]) -> Result<()> {
    let mut last: BTreeMap<&str, (i64, i32)> = BTreeMap::new();
    for (key, revision, part) in records {
        let before = last.insert(key, (*revision, *part));
        ensure!(
            before.is_none_or(|before| before < (*revision, *part)),
            "{topic}: {key} goes from {before:?} to revision {revision} part {part}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_and_a_step_back_are_seen() {
        let at = |revision, part| ("t/d".to_owned(), revision, part);
        assert!(once("x", &[at(1, 0), at(1, 1)]).is_ok());
        assert!(once("x", &[at(1, 0), at(1, 0)]).is_err());
        assert!(rising("x", &[at(1, 0), at(1, 1), at(2, 0)]).is_ok());
        assert!(rising("x", &[at(1, 1), at(1, 0)]).is_err());
        assert!(rising("x", &[at(2, 0), at(1, 0)]).is_err());
    }
}
