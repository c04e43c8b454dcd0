//! Batches over many documents: who needs vectors asks [`Embedder`], and whoever asks at the same time shares the model.
//!
//! ```text
//! pipeline ─┐ documents (waits when full)        ┌─ model's thread ─┐
//!           ├──────────▶ owner: what waits ──────▶│ one batch at a   │
//! grpc ─────┘ queries (refused when full)  ◀──────│ time, gate       │
//!                                                 └──────────────────┘
//! ```
//! - One owner task holds all that waits; it chooses a batch only when the model is idle, from all that has come until
//!   then, so waiting makes batches better and never fuller than the limits (but for a text that is longer, one a
//!   stream). For a fast device a full batch of documents can
//!   be handed over while another one runs ([`BatchLimits::prepared_batches`]).
//! - Texts are tokenised by their callers before they wait: lengths are known, and the model computes meanwhile.
//! - Queries run before documents; a request whose caller has left is dropped unrun.
//! - Documents of different tenants take turns: whoever has had the fewest tokens by its weight goes first.
//! - Every queue is bounded; documents wait for room, queries are told to come back.
//! - What the [`cache`](crate::cache) knows is neither tokenised nor queued: an answer that it has whole needs no model.
//!
//! Rejected: a batch per part (half of each is padding, and queries wait behind a whole part); a second session for
//! queries (it would have half of the threads, so each query would run at half speed);
//! batches as large as fit (no faster on a processor, and every query waits for their end).

mod engine;
mod limits;
mod owner;
mod patience;
mod safe;
mod trace;
mod waiting;

use std::sync::Arc;

use millrace_telemetry::{Span, names};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

pub use engine::Health;
pub use limits::{BatchLimits, MOST_WEIGHT};
pub use waiting::Class;

use crate::cache::{Cache, Entry, Key, Lot};
use crate::model::{Description, Loaded, Outage, TextError, Tokenizer, Tokens, Vector};
use engine::Engine;
use owner::{Channels, Owner, Request};

/// Why texts were not embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The model does not take one of the texts. Asking again changes nothing.
    #[error("text {index}: {source}")]
    Text {
        /// Its place in the request, from 0.
        index: usize,
        /// Why.
        source: TextError,
    },
    /// The model works, and refuses this text. Asking again changes nothing.
    #[error("the model refuses text {index}: {why}")]
    Refused {
        /// Its place in the request, from 0.
        index: usize,
        /// What it said.
        why: String,
    },
    /// The model works, but it fails on this text.
    #[error("the model fails on text {index}: {why}")]
    Failed {
        /// Its place in the request, from 0.
        index: usize,
        /// What happened.
        why: String,
    },
    /// The queue of queries is full.
    #[error("the queue is full")]
    Busy,
    /// The model does not compute at all now; it is asked again every few seconds.
    #[error("the model does not compute: {0}")]
    Outage(Outage),
    /// The process is shutting down.
    #[error("the embedder is stopping")]
    Stopped,
}

impl EmbedError {
    /// The same of texts that stand so many places later in a longer list.
    #[must_use]
    pub fn later_by(self, places: usize) -> Self {
        self.placed(|index| index + places)
    }

    /// The same of texts that stand elsewhere in a longer list.
    fn placed(self, place: impl FnOnce(usize) -> usize) -> Self {
        match self {
            Self::Text { index, source } => Self::Text {
                index: place(index),
                source,
            },
            Self::Refused { index, why } => Self::Refused {
                index: place(index),
                why,
            },
            Self::Failed { index, why } => Self::Failed {
                index: place(index),
                why,
            },
            Self::Busy | Self::Outage(_) | Self::Stopped => self,
        }
    }
}

/// Why the batcher ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The model's thread could not be started.
    #[error("starting the model's thread failed")]
    Spawn(#[source] std::io::Error),
    /// The model's thread ended by itself: a panic in it, logged where it happened.
    #[error("the model's thread died")]
    ModelThread,
}

/// What is loaded: the identity stamped on vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The identity stamped on every vector.
    pub model: millrace_events::Model,
    /// Longest text in tokens.
    pub max_tokens: usize,
    /// What is put before texts.
    pub prefixes: Prefixes,
}

/// What a model wants to be put before texts, as its manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// Before queries.
    pub query: String,
    /// Before chunks of documents.
    pub document: String,
}

/// What a text is to a model that tells queries and documents apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A query.
    Query,
    /// A chunk of a document.
    Document,
    /// As it is: whoever asks has put before it what the model wants.
    Raw,
}

impl Prefixes {
    fn of(&self, kind: InputKind) -> &str {
        match kind {
            InputKind::Query => &self.query,
            InputKind::Document => &self.document,
            InputKind::Raw => "",
        }
    }
}

/// Vectors, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One a text, in their order.
    pub vectors: Vec<Vector>,
    /// Tokens of all texts, what was put before them and the special ones included.
    pub tokens: usize,
}

impl Embedded {
    fn nothing() -> Self {
        Self {
            vectors: Vec::new(),
            tokens: 0,
        }
    }

    /// What was known, with what was computed in the gaps.
    fn of(known: Vec<Option<Entry>>, computed: Self) -> Self {
        let tokens = known.iter().flatten().map(|entry| entry.tokens as usize).sum::<usize>();
        let mut gaps = computed.vectors.into_iter();
        let fill = |entry: Option<Entry>| entry.map(|entry| entry.vector).or_else(|| gaps.next());
        Self {
            vectors: known.into_iter().filter_map(fill).collect(),
            tokens: tokens + computed.tokens,
        }
    }
}

/// Asks for vectors. Cheap to clone; the batcher ends when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Embedder {
    cache: Option<Cache>,
    tokenizer: Tokenizer,
    info: Arc<ModelInfo>,
    tenant: Arc<str>,
    queries: mpsc::Sender<Request>,
    documents: mpsc::Sender<Request>,
    health: watch::Receiver<Health>,
    at_work: watch::Receiver<Description>,
}

/// A batcher that does not run yet.
pub struct Batcher {
    remember: Option<mpsc::Sender<Lot>>,
    limits: BatchLimits,
    model: Loaded,
    queries: mpsc::Receiver<Request>,
    documents: mpsc::Receiver<Request>,
    engine_health: watch::Sender<Health>,
    at_work: watch::Sender<Description>,
    info: Arc<ModelInfo>,
}

/// A batcher around a loaded model, and the handle to ask it with.
pub fn batcher(model: Loaded, limits: BatchLimits) -> (Embedder, Batcher) {
    batcher_with(model, limits, None)
}

/// The same with the model's cache. Both let go of it when they end.
pub fn batcher_with(model: Loaded, limits: BatchLimits, cache: Option<Cache>) -> (Embedder, Batcher) {
    let (ask_query, queries) = mpsc::channel(limits.queue_requests);
    let (ask_document, documents) = mpsc::channel(limits.queue_requests);
    let (engine_health, health) = watch::channel(match model.proven {
        true => Health::Good,
        false => Health::Broken("it has not been asked yet".into()),
    });
    let info = Arc::new(ModelInfo {
        model: model.manifest.identity(),
        max_tokens: model.manifest.max_tokens,
        prefixes: Prefixes {
            query: model.manifest.query_prefix.clone(),
            document: model.manifest.document_prefix.clone(),
        },
    });
    let (at_work, seen_at_work) = watch::channel(model.backend.describe());
    let remember = cache.as_ref().map(Cache::lots);
    let embedder = Embedder {
        cache,
        tokenizer: model.tokenizer.clone(),
        info: info.clone(),
        tenant: Arc::default(),
        queries: ask_query,
        documents: ask_document,
        health,
        at_work: seen_at_work,
    };
    let batcher = Batcher {
        remember,
        limits,
        model,
        queries,
        documents,
        engine_health,
        at_work,
        info,
    };
    (embedder, batcher)
}

impl Batcher {
    /// Works until the last [`Embedder`] is gone, then answers what was asked and joins the model's thread.
    pub async fn run(self) -> Result<(), BatchError> {
        // Where none is prepared, what comes while a batch runs, a query above all, can still join the next one.
        let (give, jobs) = mpsc::channel(1 + self.limits.prepared_batches);
        let (report, done) = mpsc::channel(1 + self.limits.prepared_batches);
        let (health, at_work) = (self.engine_health.clone(), self.at_work.subscribe());
        let engine = Engine::new(self.model, self.engine_health, self.at_work);
        let thread = std::thread::Builder::new()
            .name("model".into())
            .spawn(move || engine.run(jobs, report))
            .map_err(BatchError::Spawn)?;
        let channels = Channels {
            queries: self.queries,
            documents: self.documents,
            jobs: give,
            done,
            health,
            at_work,
            model: self.info,
            remember: self.remember,
        };
        let mut owner = Owner::new(self.limits, channels);
        let outcome = owner.run().await;
        // Its channels close with it, which ends the thread.
        drop(owner);
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match (outcome, joined) {
            (Ok(()), Ok(Ok(()))) => Ok(()),
            (Err(error), _) => Err(error),
            (Ok(()), _) => Err(BatchError::ModelThread),
        }
    }
}

impl Embedder {
    /// The vectors of `texts`, in their order: of all of them, or an error.
    ///
    /// Documents wait while the queue is full; queries are refused with [`EmbedError::Busy`]. A caller that drops this
    /// future takes its texts out of the queue.
    pub async fn embed(&self, texts: Vec<String>, class: Class) -> Result<Vec<Vector>, EmbedError> {
        let kind = match class {
            Class::Query => InputKind::Query,
            Class::Document => InputKind::Document,
        };
        Ok(self.embed_as(texts, class, kind).await?.vectors)
    }

    /// As [`Self::embed`], for texts that are something else to the model than their class says.
    pub async fn embed_as(
        &self,
        mut texts: Vec<String>,
        class: Class,
        kind: InputKind,
    ) -> Result<Embedded, EmbedError> {
        let Some(cache) = &self.cache else {
            return self.compute(texts, Vec::new(), class, kind).await;
        };
        let prefix = self.info.prefixes.of(kind);
        let keys: Vec<Key> = texts.iter().map(|text| cache.key(prefix, text)).collect();
        let known = cache.lookup(&keys).await;
        let gaps: Vec<usize> = (0..known.len()).filter(|at| known[*at].is_none()).collect();
        let cached = i64::try_from(known.len() - gaps.len()).unwrap_or(i64::MAX);
        Span::current().set(names::CACHE_TEXTS, cached);
        let (texts, keys) = gaps
            .iter()
            .map(|at| (std::mem::take(&mut texts[*at]), keys[*at]))
            .unzip();
        let computed = self.compute(texts, keys, class, kind).await;
        let computed = computed.map_err(|error| error.placed(|index| gaps[index]))?;
        Ok(Embedded::of(known, computed))
    }

    /// Has the model compute texts, each to be remembered by its key, if there are any.
    async fn compute(
        &self,
        texts: Vec<String>,
        keys: Vec<Key>,
        class: Class,
        kind: InputKind,
    ) -> Result<Embedded, EmbedError> {
        if texts.is_empty() {
            return Ok(Embedded::nothing());
        }
        let (tokenizer, info) = (self.tokenizer.clone(), self.info.clone());
        let inputs = tokio::task::spawn_blocking(move || {
            let prefix = info.prefixes.of(kind);
            let tokenize = |(index, text): (usize, &String)| {
                let tokens = tokenizer.tokenize_after(prefix, text);
                tokens.map_err(|source| EmbedError::Text { index, source })
            };
            texts.iter().enumerate().map(tokenize).collect::<Result<Vec<_>, _>>()
        })
        .await
        .map_err(|_| EmbedError::Stopped)??;
        let tokens = inputs.iter().map(Tokens::len).sum();
        let (reply, answer) = oneshot::channel();
        let span = Span::current();
        let request = Request {
            class,
            tenant: self.tenant.clone(),
            inputs,
            keys,
            reply,
            span,
        };
        match class {
            Class::Query => self.queries.try_send(request).map_err(|error| match error {
                TrySendError::Full(_) => EmbedError::Busy,
                TrySendError::Closed(_) => EmbedError::Stopped,
            })?,
            Class::Document => self.documents.send(request).await.map_err(|_| EmbedError::Stopped)?,
        }
        let vectors = answer.await.unwrap_or(Err(EmbedError::Stopped))?;
        Ok(Embedded { vectors, tokens })
    }

    /// The same, for texts of a tenant's documents: tenants take turns. All that name none are one.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Self {
        Self {
            tenant: tenant.into(),
            ..self.clone()
        }
    }

    /// What is loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What computes at this moment.
    pub fn at_work(&self) -> Description {
        self.at_work.borrow().clone()
    }

    /// Whether the model computes, as the last batch or canary showed.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
