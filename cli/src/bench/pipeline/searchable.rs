//! What has become searchable, as the log tells it: one event of `vectors.indexed` for each document.
//!
//! The clock is its arrival with a `read_committed` reader, as others would learn of it.

use std::collections::HashSet;
use std::future::ready;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use millrace_events::{IndexEvent, Record, VectorsIndexed};
use millrace_kafka::{KafkaConfig, Tail, TailConfig, TailEvent, tail};
use millrace_runtime::codec::Codec;
use millrace_schema::Registry;
use millrace_testkit::{Client, Stack};
use tokio::time::timeout;

use super::super::whole::{AT_ONCE, INDEXED_WITHIN};
use crate::demo::corpus::Document;

/// Documents that are searched for, of all that were measured.
const SEARCHED: usize = 20;
/// Words of a document that it is searched for with.
const QUERY_WORDS: usize = 8;

/// Reads events as they are committed.
pub struct Searchable {
    tail: Tail,
    codec: Codec,
}

/// What came of documents.
pub struct Passed {
    /// Searchable ones.
    pub chunks: usize,
    /// From the first Submit to the last event.
    pub seconds: f64,
}

impl Passed {
    pub fn chunks_per_second(&self) -> f64 {
        self.chunks as f64 / self.seconds
    }
}

impl Searchable {
    /// Of a stack, from its beginning.
    pub async fn of(stack: &Stack) -> Result<Self> {
        let kafka = KafkaConfig {
            bootstrap_servers: stack.addresses.kafka.clone(),
            ..KafkaConfig::default()
        };
        let topic = TailConfig {
            topic: VectorsIndexed::TOPIC.name.to_owned(),
            ..TailConfig::default()
        };
        let registry = Registry::new(&stack.addresses.registry)?;
        Ok(Self {
            tail: tail(&kafka, topic)?,
            codec: Codec::connect(registry, &[], &[VectorsIndexed::TOPIC]).await?,
        })
    }

    /// The next event.
    pub async fn next(&mut self) -> Result<VectorsIndexed> {
        loop {
            let event = self.tail.next().await.context("the reader has died")?;
            if let TailEvent::Record(record) = event
                && let Some(value) = record.value
            {
                let event: VectorsIndexed = self.codec.decode(&value).await?;
                ensure!(
                    event.event == IndexEvent::Live,
                    "{} was deleted by nobody",
                    event.document_id
                );
                return Ok(event);
            }
        }
    }

    /// Submits documents, [`AT_ONCE`], until all are searchable.
    pub async fn pass(&mut self, client: &Client, documents: &[Document]) -> Result<Passed> {
        let began = Instant::now();
        let submits = documents
            .iter()
            .map(|document| client.submit(&document.id, document.text.as_str()));
        let submits = stream::iter(submits)
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| ready(Ok(())));
        let both = async { tokio::try_join!(submits, self.all(documents)) };
        let both = timeout(INDEXED_WITHIN, both).await;
        let ((), chunks) = both.context("not all documents were searchable in time")??;
        Ok(Passed {
            chunks,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// Chunks of these documents, once each has become searchable.
    async fn all(&mut self, documents: &[Document]) -> Result<usize> {
        let mut left: HashSet<&str> = documents.iter().map(|document| document.id.as_str()).collect();
        let mut chunks = 0;
        while !left.is_empty() {
            let event = self.next().await?;
            ensure!(
                left.remove(event.document_id.as_str()),
                "{} became searchable twice, or was not submitted",
                event.document_id
            );
            chunks += usize::try_from(event.chunk_count)?;
        }
        Ok(chunks)
    }
}

/// Searches for some of the documents, for each with its own first words.
pub async fn found(client: &Client, documents: &[Document]) -> Result<()> {
    for document in documents.iter().step_by(documents.len().div_ceil(SEARCHED).max(1)) {
        let words: Vec<_> = document.text.split_whitespace().take(QUERY_WORDS).collect();
        let hits = client.find(&words.join(" "), 1, &[&document.id]).await?;
        ensure!(!hits.is_empty(), "a search does not find {}", document.id);
    }
    Ok(())
}
