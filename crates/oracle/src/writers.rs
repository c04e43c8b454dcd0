//! Writers: each has documents of its own, and asks for revisions, deletions and revisions again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_events::{Epoch, Revision, topics};
use millrace_flow::{Headers, Output};
use millrace_kafka::{KafkaConfig, Producer};
use millrace_testkit::Client;
use millrace_testkit::client::is_for_now;
use millrace_testkit::stack::Addresses;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::journal::{Act, Entry, Journal, now_ms};

/// Tenant of all documents of a run.
pub const TENANT: &str = "chaos";
/// Revisions that a writer has under way at most.
const AHEAD: usize = 4;
/// Until what was not answered is asked for again.
const AGAIN: Duration = Duration::from_millis(250);
/// Far longer than any outage of a run.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
/// States that end a revision.
pub const FINAL: [DocumentState; 5] = [
    DocumentState::Indexed,
    DocumentState::Deleted,
    DocumentState::Failed,
    DocumentState::Superseded,
    DocumentState::DuplicateOf,
];

/// `tenant/document_id`, as records are keyed.
pub fn key(document: &str) -> String {
    format!("{TENANT}/{document}")
}

/// The documents' names.
pub fn documents(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("notes/{n}.md")).collect()
}

/// Sends what clients ask for, and writes it down.
#[derive(Debug)]
pub struct Desk {
    client: Client,
    producer: Producer,
    journal: Journal,
    deletes: Mutex<BTreeMap<String, Vec<Option<i64>>>>,
}

impl Desk {
    /// Writes to a stack.
    pub fn new(addresses: &Addresses, journal: Journal) -> Result<Self> {
        let kafka = KafkaConfig {
            bootstrap_servers: addresses.kafka.clone(),
            ..KafkaConfig::default()
        };
        Ok(Self {
            client: Client::new(addresses, TENANT)?,
            producer: Producer::new(&kafka, "chaos")?,
            journal,
            deletes: Mutex::default(),
        })
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether a deletion was asked for that may have become effective after this revision.
    pub fn may_be_deleted_after(&self, document: &str, revision: i64) -> bool {
        let deletes = self.deletes.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = deletes.get(document).into_iter().flatten();
        asked
            .into_iter()
            .any(|delete| delete.is_none_or(|delete| delete > revision))
    }

    /// Asks until there is a receipt.
    pub async fn ask(&self, document: &str, act: Act, number: usize) -> Result<Receipt> {
        let id = uuid::Uuid::new_v4().to_string();
        self.asked(&id, document, act)?;
        let body = match act {
            Act::Upsert { sections } => Some(body(document, number, sections)),
            _ => None,
        };
        if act == Act::Delete {
            self.with_deletes(document, |deletes| deletes.push(None));
        }
        let began = Instant::now();
        let receipt = loop {
            ensure!(
                began.elapsed() < ANSWERED_WITHIN,
                "{act:?} of {document} was never answered"
            );
            let answer = match &body {
                Some(body) => {
                    let mut request = self.client.request(document, body.clone());
                    request.request_id = id.clone();
                    self.client.send(request).await
                }
                None => self.client.send_delete(document, &id).await,
            };
            match answer {
                Ok(receipt) => break receipt,
                Err(status) if is_for_now(&status) => tokio::time::sleep(AGAIN).await,
                Err(status) => return Err(status).with_context(|| format!("{act:?} of {document}")),
            }
        };
        self.answered(id, receipt.revision)?;
        if act == Act::Delete {
            self.with_deletes(document, |deletes| {
                if let Some(delete) = deletes.iter_mut().find(|delete| delete.is_none()) {
                    *delete = Some(receipt.revision);
                }
            });
        }
        Ok(receipt)
    }

    /// Puts what nobody can read into the log, as a client of another team might. Whether it stands there may stay
    /// unknown.
    pub async fn poison(&self, document: &str) -> Result<()> {
        let id = uuid::Uuid::new_v4().to_string();
        self.asked(&id, document, Act::Poison)?;
        let record = Output {
            topic: topics::SUBMITTED.in_epoch(Epoch::FIRST),
            partition: None,
            key: Bytes::from(key(document)),
            value: Some(Bytes::from(format!("no record: {id}"))),
            headers: Headers::default(),
        };
        if let Ok(sent) = self.producer.send(record).await {
            self.answered(id, Revision::new(Epoch::FIRST, sent.offset)?.get())?;
        }
        Ok(())
    }

    fn asked(&self, id: &str, document: &str, act: Act) -> Result<()> {
        self.journal.write(Entry::Asked {
            id: id.to_owned(),
            document: key(document),
            act,
            at_ms: now_ms(),
        })
    }

    fn answered(&self, id: String, revision: i64) -> Result<()> {
        let at_ms = now_ms();
        self.journal.write(Entry::Receipt { id, revision, at_ms })
    }

    fn with_deletes(&self, document: &str, change: impl FnOnce(&mut Vec<Option<i64>>)) {
        let mut deletes = self.deletes.lock().unwrap_or_else(PoisonError::into_inner);
        change(deletes.entry(document.to_owned()).or_default());
    }

    /// Waits until a revision has a final state, or nobody wants to know any more.
    async fn settled(&self, receipt: &Receipt, stop: &CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            let document = self.client.get(&receipt.document_id, receipt.revision).await?;
            if document.is_some_and(|document| FINAL.contains(&document.state())) {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }
}

/// Writes on until it is told to stop. What it has asked for by then it waits for the receipt of.
pub async fn write_on(desk: &Desk, documents: &[String], seed: u64, stop: &CancellationToken) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut open = VecDeque::new();
    let mut number = 0;
    while !stop.is_cancelled() {
        let document = documents.choose(&mut rng).context("no documents")?;
        // One in five of several parts, and the rest of one.
        let sections = if rng.random_ratio(1, 5) { 40 } else { 1 };
        let acts = match rng.random_range(0..100) {
            0 => {
                desk.poison(document).await?;
                continue;
            }
            1..=12 => vec![Act::Delete],
            13..=30 => vec![Act::Upsert { sections }; 2],
            31..=36 => vec![Act::Delete, Act::Upsert { sections }],
            _ => vec![Act::Upsert { sections }],
        };
        for act in acts {
            number += 1;
            open.push_back(desk.ask(document, act, number).await?);
        }
        while open.len() > AHEAD {
            if let Some(oldest) = open.pop_front() {
                desk.settled(&oldest, stop).await?;
            }
        }
    }
    Ok(())
}

/// Each section is a chunk of its own, and short: what is proved does not need a model that computes for long.
fn body(document: &str, number: usize, sections: usize) -> String {
    let section = |n| format!("# Note {n}\n\nNote {n} of write {number} to {document}.\n\n");
    (0..sections).map(section).collect()
}
