//! Topics, read `read_committed`, and the promises that can be read off them.

use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_events::{
    ChunksEmbedded, DocumentParsed, DocumentStatus, IndexEvent, Record, State, VectorsIndexed, headers,
};
use millrace_flow::{Delivery, Failure};
use millrace_kafka::{Admin, KafkaConfig, TailConfig, TailEvent};
use millrace_runtime::codec::Codec;
use millrace_schema::Registry;

use crate::poll;
use crate::stack::Addresses;

/// For the markers of the last transactions.
const COMPLETE_WITHIN: Duration = Duration::from_secs(30);

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

/// All committed records of a record type's topic, in order within each partition; one that cannot be read is an error.
pub async fn read<R: Record>(addresses: &Addresses) -> Result<Vec<(Delivery, R)>> {
    let decoded = decode::<R>(addresses).await?.into_iter();
    decoded.map(|(delivery, record)| Ok((delivery, record?))).collect()
}

/// All committed records of a record type's topic, in order within each partition, with what each says.
pub async fn decode<R: Record>(addresses: &Addresses) -> Result<Vec<(Delivery, Result<R, Failure>)>> {
    let codec = Codec::connect(Registry::new(&addresses.registry)?, &[], &[R::TOPIC]).await?;
    let mut decoded = Vec::new();
    for delivery in records(&addresses.kafka, R::TOPIC.name).await? {
        let Some(value) = delivery.value.clone() else { continue };
        decoded.push((delivery, codec.decode::<R>(&value).await));
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

/// Each (document, revision, part, redrive) once in `documents.parsed` and `chunks.embedded`, the same parts in both; an
/// event once in `vectors.indexed` for each revision that ever had the status INDEXED or DELETED, and for no other;
/// revisions rising per key everywhere, parts in order.
///
/// What was redriven comes when it comes, and not through every stage: it is held against the first and the second alone.
pub async fn check(addresses: &Addresses) -> Result<Seen> {
    // The last transaction is decided before its markers stand in every partition.
    poll::until("the topics to be complete", COMPLETE_WITHIN, async || {
        let topics = Topics::read(addresses).await?;
        topics.in_order_and_once()?;
        Ok(topics.complete().map(|()| topics.seen()))
    })
    .await
}

/// Key, revision and part, or kind of event, of each record, and how often it was redriven.
type Records = Vec<(String, i64, i32, i32)>;

struct Topics {
    parsed: Records,
    embedded: Records,
    indexed: Records,
    /// Keys of the statuses INDEXED and DELETED.
    reached: BTreeSet<String>,
}

impl Topics {
    async fn read(addresses: &Addresses) -> Result<Self> {
        let parsed = read::<DocumentParsed>(addresses).await?;
        let embedded = read::<ChunksEmbedded>(addresses).await?;
        let indexed = read::<VectorsIndexed>(addresses).await?;
        let statuses = read::<DocumentStatus>(addresses).await?;
        let became = |status: &DocumentStatus| matches!(status.state, State::Indexed | State::Deleted);
        let parsed = parsed
            .iter()
            .map(|(at, r)| (key_of(at), r.revision, r.part, redrive(at)));
        let embedded = embedded
            .iter()
            .map(|(at, r)| (key_of(at), r.revision, r.part, redrive(at)));
        let indexed = indexed.iter().map(|(at, r)| {
            let deleted = i32::from(r.event == IndexEvent::Deleted);
            (key_of(at), r.revision, deleted, redrive(at))
        });
        let reached = statuses.iter().filter(|(_, status)| became(status));
        Ok(Self {
            parsed: parsed.collect(),
            embedded: embedded.collect(),
            indexed: indexed.collect(),
            reached: reached.map(|(at, _)| key_of(at)).collect(),
        })
    }

    fn in_order_and_once(&self) -> Result<()> {
        for (topic, records) in [
            ("documents.parsed", &self.parsed),
            ("chunks.embedded", &self.embedded),
            ("vectors.indexed", &self.indexed),
        ] {
            once(topic, records)?;
            rising(topic, records)?;
        }
        let events: Vec<_> = self
            .indexed
            .iter()
            .map(|(key, revision, kind, _)| (key, revision, kind))
            .collect();
        once("vectors.indexed", &events)
    }

    /// What is missing, if something is.
    fn complete(&self) -> Result<(), String> {
        let first = |records: &'_ Records| -> BTreeSet<_> {
            let first = records.iter().filter(|(.., redrive)| *redrive == 0);
            first
                .map(|(key, revision, part, _)| (key.clone(), *revision, *part))
                .collect()
        };
        let (one, other) = (first(&self.parsed), first(&self.embedded));
        let missing: Vec<_> = one.symmetric_difference(&other).take(5).collect();
        if !missing.is_empty() {
            return Err(format!(
                "parts that stand in only one of documents.parsed and chunks.embedded: {missing:?}"
            ));
        }
        let indexed = self.indexed.iter();
        let announced: BTreeSet<_> = indexed.map(|(key, revision, ..)| format!("{key}#{revision}")).collect();
        let odd: Vec<_> = announced.symmetric_difference(&self.reached).take(5).collect();
        if !odd.is_empty() {
            return Err(format!(
                "revisions with only one of an event and a status that says so: {odd:?}"
            ));
        }
        Ok(())
    }

    fn seen(&self) -> Seen {
        Seen {
            parsed: self.parsed.len(),
            embedded: self.embedded.len(),
            indexed: self.indexed.len(),
        }
    }
}

/// A record's key, as text.
pub fn key_of(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.key.as_deref().unwrap_or_default()).into_owned()
}

/// How often a record was redriven: 0 of most.
pub fn redrive(delivery: &Delivery) -> i32 {
    let redrive = delivery.headers.get_str(headers::REDRIVE);
    redrive.and_then(|n| n.parse().ok()).unwrap_or(0)
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

fn rising(topic: &str, records: &[(String, i64, i32, i32)]) -> Result<()> {
    let mut last: BTreeMap<&str, (i64, i32)> = BTreeMap::new();
    for (key, revision, part, _) in records.iter().filter(|(.., redrive)| *redrive == 0) {
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
        let at = |revision, part| ("t/d".to_owned(), revision, part, 0);
        assert!(once("x", &[at(1, 0), at(1, 1)]).is_ok());
        assert!(once("x", &[at(1, 0), at(1, 0)]).is_err());
        assert!(rising("x", &[at(1, 0), at(1, 1), at(2, 0)]).is_ok());
        assert!(rising("x", &[at(1, 1), at(1, 0)]).is_err());
        assert!(rising("x", &[at(2, 0), at(1, 0)]).is_err());
        let redriven = ("t/d".to_owned(), 1, 0, 1);
        assert!(once("x", &[at(1, 0), redriven.clone()]).is_ok());
        assert!(rising("x", &[at(2, 0), redriven]).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        let topics = |parsed: &[i32], embedded: &[i32], indexed: &[i64], reached: &[&str]| Topics {
            parsed: parsed.iter().map(|part| ("t/d".to_owned(), 1, *part, 0)).collect(),
            embedded: embedded.iter().map(|part| ("t/d".to_owned(), 1, *part, 0)).collect(),
            indexed: indexed
                .iter()
                .map(|revision| ("t/d".to_owned(), *revision, 0, 0))
                .collect(),
            reached: reached.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert_eq!(topics(&[0, 1], &[1, 0], &[1], &["t/d#1"]).complete(), Ok(()));
        for (topics, named) in [
            (topics(&[0, 1], &[0], &[1], &["t/d#1"]), "(\"t/d\", 1, 1)"),
            (topics(&[0], &[0, 1], &[1], &["t/d#1"]), "(\"t/d\", 1, 1)"),
            (topics(&[0], &[0], &[], &["t/d#1"]), "t/d#1"),
            (topics(&[0], &[0], &[1, 2], &["t/d#1"]), "t/d#2"),
        ] {
            assert!(
                topics.complete().is_err_and(|missing| missing.contains(named)),
                "{named}"
            );
        }
    }
}
