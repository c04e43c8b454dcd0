//! The client of a run: what it asks for is in the journal first, and asked for again until there is an answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millrace_api::embedder::v1::EmbedRequest;
use millrace_api::embedder::v1::embedder_service_client::EmbedderServiceClient;
use millrace_api::indexer::v1::audit_service_client::AuditServiceClient;
use millrace_api::indexer::v1::search_request::Query;
use millrace_api::indexer::v1::{AuditIndexRequest, Hit, SearchRequest, Vector, audit_index_response};
use millrace_api::ingest::v1::dead_letter_service_client::DeadLetterServiceClient;
use millrace_api::ingest::v1::{
    DeadLetterFilter, DeadLetterState, Document, DocumentState, Receipt, RedriveDeadLettersRequest,
};
use millrace_events::{Epoch, Revision, topics};
use millrace_flow::{Headers, Output};
use millrace_kafka::{KafkaConfig, Producer};
use millrace_runtime::clock::now_ms;
use millrace_testkit::client::is_for_now;
use millrace_testkit::stack::Addresses;
use millrace_testkit::{model, poll};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::journal::{Act, Entry, Journal};

/// Tenant of all documents of a run.
pub const TENANT: &str = "chaos";
/// Until what was not answered is asked for again.
const AGAIN: Duration = Duration::from_millis(250);
/// Far longer than any outage of a run.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
/// A word in every chunk of a run's documents, and in no canary of a model.
pub const WORD: &str = "Note";
/// Documents that searchers look at above all: their heads are about to move.
const RECENT: usize = 6;
/// More than any document has chunks.
const K: i32 = 200;
/// States that end a revision.
const FINAL: [DocumentState; 5] = [
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

/// Asks and searches, and writes down what it asks for. Cheap to clone: a run has one journal.
#[derive(Debug, Clone)]
pub struct Client {
    /// Through each instance of ingest.
    ingests: Vec<millrace_testkit::Client>,
    /// The one that it speaks to, unless that is away: position in `ingests`.
    own: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    letters: DeadLetterServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
    producer: Producer,
    journal: Journal,
    deletes: Mutex<BTreeMap<String, Vec<Option<i64>>>>,
    /// Documents that were asked for last.
    recent: Mutex<VecDeque<String>>,
    /// To search with: any would do, every chunk of a document is wanted.
    vector: Vec<f32>,
}

impl Client {
    /// Of a stack that serves.
    pub async fn connect(addresses: &Addresses, ingests: &[String], journal: Journal) -> Result<Self> {
        let kafka = KafkaConfig {
            bootstrap_servers: addresses.kafka.clone(),
            ..KafkaConfig::default()
        };
        let mut embedder = EmbedderServiceClient::new(millrace_rpc::client::channel(&addresses.embedder)?);
        let texts = vec!["note".to_owned()];
        let answer = embedder.embed(EmbedRequest { texts }).await?.into_inner();
        let embedding = answer.embeddings.into_iter().next().context("no embedding")?;
        let shared = Shared {
            audit: AuditServiceClient::new(millrace_rpc::client::channel(&addresses.indexer)?),
            letters: DeadLetterServiceClient::new(millrace_rpc::client::channel(&addresses.ingest)?),
            producer: Producer::new(&kafka, "chaos")?,
            journal,
            deletes: Mutex::default(),
            recent: Mutex::default(),
            vector: embedding.values,
        };
        let through = |ingest: &String| millrace_testkit::Client::through(ingest, addresses, TENANT);
        Ok(Self {
            ingests: ingests.iter().map(through).collect::<Result<_>>()?,
            own: 0,
            shared: Arc::new(shared),
        })
    }

    /// The same, speaking to that instance of ingest, counted round. One may be behind another in what it tells: each is
    /// believed what it told, and none is taken to know all.
    pub fn of_instance(&self, number: usize) -> Self {
        Self {
            own: number % self.ingests.len(),
            ..self.clone()
        }
    }

    fn inner(&self) -> &millrace_testkit::Client {
        &self.ingests[self.own]
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// What is known of a document; none while nothing is, or nobody answers.
    pub async fn get(&self, document: &str) -> Result<Option<Document>> {
        self.inner().get(document, 0).await
    }

    /// Waits until a revision is INDEXED.
    pub async fn indexed(&self, receipt: &Receipt) -> Result<Document> {
        self.inner().indexed(receipt).await
    }

    /// Every chunk of a document that a search finds; none if it was not answered, or in part.
    pub async fn hits(&self, document: &str) -> Result<Option<Vec<Hit>>> {
        let request = SearchRequest {
            tenant: TENANT.to_owned(),
            query: Some(Query::Vector(Vector {
                values: self.shared.vector.clone(),
            })),
            k: K,
            min_score: None,
            document_ids: vec![document.to_owned()],
        };
        match self.inner().answer(request).await {
            Ok(answer) => Ok((!answer.partial).then_some(answer.hits)),
            Err(status) if is_for_now(&status) => Ok(None),
            Err(status) => Err(status).with_context(|| format!("search in {document}")),
        }
    }

    /// The documents that were asked for last.
    pub fn recent(&self) -> Vec<String> {
        let recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().cloned().collect()
    }

    /// Whether a deletion was asked for that may have become effective after this revision.
    pub fn may_be_deleted_after(&self, document: &str, revision: i64) -> bool {
        let deletes = self.shared.deletes.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = deletes.get(document).into_iter().flatten();
        asked
            .into_iter()
            .any(|delete| delete.is_none_or(|delete| delete > revision))
    }

    /// Asks until there is a receipt. Where an instance gives none the next one is asked, for what the first may have done:
    /// that is a duplicate then.
    pub async fn ask(&self, document: &str, act: Act, number: usize) -> Result<Receipt> {
        let id = uuid::Uuid::new_v4().to_string();
        self.asked(&id, document, act)?;
        let body = match act {
            Act::Upsert { sections } => Some(body(document, number, sections, None)),
            Act::Refused { sections } => Some(body(document, number, sections, Some(sections / 2))),
            Act::Delete | Act::Poison => None,
        };
        if act == Act::Delete {
            self.with_deletes(document, |deletes| deletes.push(None));
        }
        let began = Instant::now();
        let mut ingests = self.ingests.iter().cycle().skip(self.own);
        let receipt = loop {
            let ingest = ingests.next().context("there is an instance of ingest")?;
            ensure!(
                began.elapsed() < ANSWERED_WITHIN,
                "{act:?} of {document} was never answered"
            );
            let answer = match &body {
                Some(body) => {
                    let mut request = ingest.request(document, body.clone());
                    request.request_id = id.clone();
                    ingest.send(request).await
                }
                None => ingest.send_delete(document, &id).await,
            };
            match answer {
                Ok(receipt) => break receipt,
                Err(status) if is_for_now(&status) => tokio::time::sleep(AGAIN).await,
                Err(status) => return Err(status).with_context(|| format!("{act:?} of {document}")),
            }
        };
        self.answered(id, receipt.revision)?;
        let mut recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front(document.to_owned());
        recent.truncate(RECENT);
        drop(recent);
        if act == Act::Delete {
            self.with_deletes(document, |deletes| {
                if let Some(delete) = deletes.iter_mut().find(|delete| delete.is_none()) {
                    *delete = Some(receipt.revision);
                }
            });
        }
        Ok(receipt)
    }

    /// Puts what nobody can read into the log, as a client of another team might. Its revision; none if it is not known
    /// whether it stands there.
    pub async fn poison(&self, document: &str) -> Result<Option<i64>> {
        let id = uuid::Uuid::new_v4().to_string();
        self.asked(&id, document, Act::Poison)?;
        let record = Output {
            topic: topics::SUBMITTED.in_epoch(Epoch::FIRST),
            partition: None,
            key: Bytes::from(key(document)),
            value: Some(Bytes::from(format!("no record: {id}"))),
            headers: Headers::default(),
        };
        let Ok(sent) = self.shared.producer.send(record).await else {
            return Ok(None);
        };
        let revision = Revision::new(Epoch::FIRST, sent.offset)?.get();
        self.answered(id, revision)?;
        Ok(Some(revision))
    }

    /// Has every open letter of the run redriven that was not as often already, and asks again until that is done. How many
    /// the last call redrove.
    pub async fn redrive(&self, most: i32) -> Result<i64> {
        poll::until("letters to be redriven", ANSWERED_WITHIN, async || {
            match self.try_redrive(most).await {
                Ok(redriven) => Ok(Ok(redriven)),
                Err(status) if is_for_now(&status) => Ok(Err(status)),
                Err(status) => Err(status).context("redrive"),
            }
        })
        .await
    }

    async fn try_redrive(&self, most: i32) -> Result<i64, Status> {
        let request = RedriveDeadLettersRequest {
            filter: Some(DeadLetterFilter {
                tenant: TENANT.into(),
                states: vec![DeadLetterState::Open.into()],
                ..DeadLetterFilter::default()
            }),
            max_redrives: most,
            ..RedriveDeadLettersRequest::default()
        };
        let mut progress = self
            .shared
            .letters
            .clone()
            .redrive_dead_letters(request)
            .await?
            .into_inner();
        while let Some(now) = progress.message().await? {
            if now.done {
                return Ok(now.redriven);
            }
        }
        Err(Status::unavailable("the redrive ended early"))
    }

    /// What the audit of the index finds, of all tenants, and how many points it read.
    pub async fn audit(&self) -> Result<(Vec<String>, i64)> {
        poll::until("an audit to be answered", ANSWERED_WITHIN, async || {
            match self.try_audit().await {
                Ok(found) => Ok(Ok(found)),
                Err(status) if is_for_now(&status) => Ok(Err(status)),
                Err(status) => Err(status).context("audit"),
            }
        })
        .await
    }

    async fn try_audit(&self) -> Result<(Vec<String>, i64), Status> {
        let request = AuditIndexRequest::default();
        let mut told = self.shared.audit.clone().audit_index(request).await?.into_inner();
        let mut found = Vec::new();
        while let Some(message) = told.message().await? {
            match message.event {
                Some(audit_index_response::Event::Finding(finding)) => found.push(format!("{finding:?}")),
                Some(audit_index_response::Event::Summary(summary)) => return Ok((found, summary.points)),
                _ => {}
            }
        }
        Err(Status::unavailable("the audit ended early"))
    }

    fn asked(&self, id: &str, document: &str, act: Act) -> Result<()> {
        self.shared.journal.write(Entry::Asked {
            id: id.to_owned(),
            document: key(document),
            act,
            at_ms: now_ms(),
        })
    }

    fn answered(&self, id: String, revision: i64) -> Result<()> {
        let at_ms = now_ms();
        self.shared.journal.write(Entry::Receipt { id, revision, at_ms })
    }

    fn with_deletes(&self, document: &str, change: impl FnOnce(&mut Vec<Option<i64>>)) {
        let mut deletes = self.shared.deletes.lock().unwrap_or_else(PoisonError::into_inner);
        change(deletes.entry(document.to_owned()).or_default());
    }

    /// Waits until a revision has a final state, or nobody wants to know any more.
    pub async fn settled(&self, document: &str, revision: i64, stop: &CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            let document = self.inner().get(document, revision).await?;
            if document.is_some_and(|document| FINAL.contains(&document.state())) {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }
}

/// Each section is a chunk of its own, and short: what is proved does not need a model that computes for long. `refused`
/// is the number of the one that the model refuses.
fn body(document: &str, number: usize, sections: usize, refused: Option<usize>) -> String {
    let section = |n| {
        let mark = if refused == Some(n) { model::REFUSED } else { "" };
        format!("# {WORD} {n}\n\n{WORD} {n} of write {number} to {document}. {mark}\n\n")
    };
    (0..sections).map(section).collect()
}
