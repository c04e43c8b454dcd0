//! Records to bytes and back, with the schemas of the registry.
//!
//! | decoding meets | failure |
//! |---|---|
//! | the registry away: no answer, 408, 5xx | Away `REGISTRY_UNAVAILABLE`: who knows a schema goes on meanwhile |
//! | the registry asking for patience: 429 | Away `REGISTRY_RATE_LIMITED`, and nobody asks before that time is over |
//! | the registry refusing us: 401, 403 and what stands nowhere else here; something that is no registry | Config `REGISTRY_REFUSED` |
//! | an id that the registry does not know or does not take: 400, 404, 413, 422 | Invalid `UNREADABLE_RECORD` |
//! | bytes without the wire format, a body that does not fit its schema | Invalid `UNREADABLE_RECORD` |
//! | a version of the topic's subject that this build does not read ([`versions`]) | Config `SCHEMA_UNREADABLE`: nothing is skipped, a build that reads it goes on from there |
//! | such a schema that is no version of the subject | Invalid `UNREADABLE_RECORD` |
//!
//! | encoding meets | failure |
//! |---|---|
//! | a topic that was not named at the start | Config `TOPIC_NOT_WRITTEN` |
//! | a record that does not fit our own schema | Invalid `UNWRITABLE_RECORD` |
//!
//! Nothing is registered here: that is `millrace topics apply`'s.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use apache_avro::Schema;
use bytes::Bytes;
use millrace_events::headers::{LANE, REDRIVE, REVISION, TRACEPARENT, TRACESTATE};
use millrace_events::partial::{self, Partial};
use millrace_events::topics::Topic;
use millrace_events::wire::{self, SchemaId, WireError};
use millrace_events::{Record, TraceContext};
use millrace_flow::{Delivery, Failure, Headers};
use millrace_rpc::error::chain;
use millrace_schema::{Registry, RegistryError};

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::versions::{self, Unreadable};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long a record waits for its turn to ask, before it makes room for one that need not.
const TURN: Duration = Duration::from_secs(1);

/// Why a process cannot read or write its topics.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A topic to write has no schema in the registry.
    #[error(
        "the schema of {topic} is not registered in subject {subject}: run `millrace topics apply` against this registry"
    )]
    NotRegistered {
        /// The topic.
        topic: &'static str,
        /// Its subject.
        subject: String,
    },
    /// A topic without a schema was asked for.
    #[error("{topic} carries raw bytes, it has no schema")]
    NoSchema {
        /// The topic.
        topic: &'static str,
    },
    /// Our own schema cannot be parsed: the build is broken.
    #[error("the built-in schema of {topic} cannot be parsed")]
    OwnSchema {
        /// The topic.
        topic: &'static str,
        /// What the parser said.
        source: Box<apache_avro::Error>,
    },
    /// A version that others may have written with cannot be read by this build.
    #[error(
        "version {version} of subject {subject} (schema id {id}) cannot be read by this build: {why}; deploy one that can, \
         or delete the version if nothing was written with it"
    )]
    Unreadable {
        /// The subject.
        subject: String,
        /// The version.
        version: i32,
        /// Its schema's id.
        id: u32,
        /// What is wrong, and where.
        why: Unreadable,
    },
    /// The registry refused, or is not one. An outage is waited for instead.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Encodes the topics a process writes and decodes those it reads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Codec(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    writers: HashMap<&'static str, (SchemaId, Schema)>,
    /// Parsed schemas by id: they never change. As many as the registry has.
    readers: RwLock<HashMap<SchemaId, Arc<Schema>>>,
    /// Held by whoever asks; until when the registry wants to be spared, and its words.
    asked: Mutex<Option<(Instant, String)>>,
}

impl Codec {
    /// Looks up the schemas of the topics to write, and proves that every registered version of the topics to read can
    /// be read. An outage of the registry is waited for, and logged; stop waiting by dropping the future.
    pub async fn connect(registry: Registry, writes: &[Topic], reads: &[Topic]) -> Result<Self, CodecError> {
        let mut wait = FIRST_WAIT;
        loop {
            match Self::try_connect(&registry, writes, reads).await {
                Err(CodecError::Registry(error)) if error.is_outage() => {
                    let asked = match &error {
                        RegistryError::RateLimited { retry_after, .. } => *retry_after,
                        _ => Duration::ZERO,
                    };
                    tracing::warn!(error = chain(&error), ?wait, "waiting for the schema registry");
                    tokio::time::sleep(wait.max(asked)).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                done => return done,
            }
        }
    }

    /// Without asking the registry anything yet: the schemas of this build, under ids of this process's own (those to
    /// write from 1, those to read from 101, in the order given). For tests; what others wrote has other ids.
    pub fn built_in(registry: Registry, writes: &[Topic], reads: &[Topic]) -> Result<Self, CodecError> {
        let written = (1..).zip(writes).map(|(id, topic)| {
            let (_, schema) = own_schema(topic)?;
            Ok::<_, CodecError>((topic.name, (SchemaId(id), schema)))
        });
        let read = (101..).zip(reads).map(|(id, topic)| {
            let (_, schema) = own_schema(topic)?;
            Ok::<_, CodecError>((SchemaId(id), Arc::new(schema)))
        });
        Ok(Self(Arc::new(Inner {
            registry,
            writers: written.collect::<Result<_, _>>()?,
            readers: RwLock::new(read.collect::<Result<_, _>>()?),
            asked: Mutex::default(),
        })))
    }

    async fn try_connect(registry: &Registry, writes: &[Topic], reads: &[Topic]) -> Result<Self, CodecError> {
        let mut writers = HashMap::new();
        for topic in writes {
            let (text, schema) = own_schema(topic)?;
            let subject = topic.subject();
            let Some(id) = registry.lookup(&subject, text).await? else {
                return Err(CodecError::NotRegistered {
                    topic: topic.name,
                    subject,
                });
            };
            writers.insert(topic.name, (SchemaId(id), schema));
        }
        let mut readers = HashMap::new();
        for topic in reads {
            let subject = topic.subject();
            for registered in registry.registered(&subject).await? {
                let schema = versions::readable(topic, &registered.schema).map_err(|why| CodecError::Unreadable {
                    subject: subject.clone(),
                    version: registered.version,
                    id: registered.id,
                    why,
                })?;
                readers.insert(SchemaId(registered.id), Arc::new(schema));
            }
        }
        tracing::info!(
            registry = registry.address(),
            writes = writers.len(),
            reads = readers.len(),
            "schemas known"
        );
        Ok(Self(Arc::new(Inner {
            registry: registry.clone(),
            writers,
            readers: RwLock::new(readers),
            asked: Mutex::default(),
        })))
    }

    /// A record in the wire format, for one of the topics that this process writes.
    pub fn encode<R: Record>(&self, record: &R) -> Result<Bytes, Failure> {
        let topic = R::TOPIC.name;
        let Some((id, schema)) = self.0.writers.get(topic) else {
            return Err(Failure::Config {
                reason: "TOPIC_NOT_WRITTEN",
                message: format!("this process was not started as a writer of {topic}"),
            });
        };
        wire::encode(record, schema, *id)
            .map(Bytes::from)
            // Without its causes, here and below: they may quote the record, and failures never quote documents.
            .map_err(|e| Failure::Invalid {
                reason: "UNWRITABLE_RECORD",
                message: e.to_string(),
            })
    }

    /// A record from its wire format, whichever registered version it was written with.
    pub async fn decode<R: Record>(&self, value: &[u8]) -> Result<R, Failure> {
        let (id, body) = wire::split(value).map_err(|e| unreadable::<R>(&e))?;
        let schema = self.reader::<R>(id).await?;
        wire::decode(body, &schema, id).map_err(|e| unreadable::<R>(&e))
    }

    /// What a record says of itself, of as much of it as can be read. For records that are given up: waits for nothing,
    /// cannot fail, and decodes nothing that may be what killed the process.
    pub fn partial(&self, value: &[u8]) -> Partial {
        let Ok((id, body)) = wire::split(value) else {
            return Partial::default();
        };
        self.known(id)
            .map(|schema| partial::read(body, &schema))
            .unwrap_or_default()
    }

    /// The registry, for a readiness check.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    async fn reader<R: Record>(&self, id: SchemaId) -> Result<Arc<Schema>, Failure> {
        if let Some(schema) = self.known(id) {
            return Ok(schema);
        }
        let topic = R::TOPIC.name;
        // One question at a time: however many records wait for a registry that hangs, few wait in here.
        let Ok(mut asked) = tokio::time::timeout(TURN, self.0.asked.lock()).await else {
            return Err(Failure::Away {
                reason: "REGISTRY_UNAVAILABLE",
                message: format!("the registry was asked by others and has not answered for {TURN:?}"),
            });
        };
        if let Some(schema) = self.known(id) {
            return Ok(schema);
        }
        if let Some((until, why)) = asked.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return Err(Failure::Away {
                reason: "REGISTRY_RATE_LIMITED",
                message: format!("{why}; {:?} of that are left", *until - Instant::now()),
            });
        }
        let answer = self.0.registry.schema_by_id(id.0).await;
        if let Err(error @ RegistryError::RateLimited { retry_after, .. }) = &answer {
            *asked = Some((Instant::now() + *retry_after, chain(error)));
        }
        let text = answer
            .map_err(|e| registry_failure(&e))?
            .ok_or_else(|| Failure::Invalid {
                reason: "UNREADABLE_RECORD",
                message: format!(
                    "a record of {topic} names schema id {}, which the registry does not know",
                    id.0
                ),
            })?;
        let schema = match versions::readable(&R::TOPIC, &text) {
            Ok(schema) => Arc::new(schema),
            Err(why) => return Err(self.unreadable_version(&R::TOPIC, id, &why).await),
        };
        tracing::info!(id = id.0, topic, "met a schema that is newer than this process");
        self.0
            .readers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, schema.clone());
        Ok(schema)
    }

    /// A version of the topic's own subject is somebody's deployment, and what is written with it waits for ours. Any
    /// other schema is this one record's mistake.
    async fn unreadable_version(&self, topic: &Topic, id: SchemaId, why: &Unreadable) -> Failure {
        let (topic, subject) = (topic.name, topic.subject());
        match versions::version_of(&self.0.registry, &subject, id.0).await {
            Err(error) if error.is_outage() => registry_failure(&error),
            // It is the subject that was asked for: nothing of this record's.
            Err(error) => Failure::Config {
                reason: "REGISTRY_REFUSED",
                message: chain(&error),
            },
            Ok(Some(version)) => Failure::Config {
                reason: "SCHEMA_UNREADABLE",
                message: format!(
                    "version {version} of subject {subject} (schema id {}) cannot be read by this build: {why}; deploy \
                     one that can: it goes on with this record",
                    id.0
                ),
            },
            Ok(None) => Failure::Invalid {
                reason: "UNREADABLE_RECORD",
                message: format!(
                    "a record of {topic} names schema id {}, which is no version of subject {subject} and cannot be \
                     read: {why}",
                    id.0
                ),
            },
        }
    }

    fn known(&self, id: SchemaId) -> Option<Arc<Schema>> {
        self.0
            .readers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }
}

fn own_schema(topic: &Topic) -> Result<(&'static str, Schema), CodecError> {
    let text = topic.schema.ok_or(CodecError::NoSchema { topic: topic.name })?;
    let schema = Schema::parse_str(text).map_err(|source| CodecError::OwnSchema {
        topic: topic.name,
        source: Box::new(source),
    })?;
    Ok((text, schema))
}

fn unreadable<R: Record>(error: &WireError) -> Failure {
    Failure::Invalid {
        reason: "UNREADABLE_RECORD",
        message: format!("a record of {} cannot be read: {error}", R::TOPIC.name),
    }
}

/// What a failed question about a record's schema means for the record.
fn registry_failure(error: &RegistryError) -> Failure {
    let message = chain(error);
    match error {
        RegistryError::Away { .. } => Failure::Away {
            reason: "REGISTRY_UNAVAILABLE",
            message,
        },
        // Not the stage's gate: records whose schemas are known need no patience.
        RegistryError::RateLimited { .. } => Failure::Away {
            reason: "REGISTRY_RATE_LIMITED",
            message,
        },
        // Nothing but the id in the question is the record's: it is the id that is refused.
        RegistryError::Refused {
            status: 400 | 404 | 413 | 422,
            ..
        } => Failure::Invalid {
            reason: "UNREADABLE_RECORD",
            message,
        },
        RegistryError::Refused { .. } | RegistryError::NotARegistry { .. } | RegistryError::Address { .. } => {
            Failure::Config {
                reason: "REGISTRY_REFUSED",
                message,
            }
        }
    }
}

/// Headers that every output takes over from its input: its document's lane, the marks of a redrive, and the trace, where no
/// span of its own is to carry it on.
pub fn carried_headers(delivery: &Delivery) -> Headers {
    let trace = [TRACEPARENT, TRACESTATE];
    let trace = trace.iter().filter(|_| !delivery.span.is_some());
    let kept = trace.chain(&[LANE, REVISION, REDRIVE]).filter_map(|name| {
        let (_, value) = delivery.headers.0.iter().rev().find(|(n, _)| n == name)?;
        Some(((*name).to_owned(), value.clone()))
    });
    Headers(kept.collect())
}

/// Headers of a record of a trace.
pub fn headers_of(context: &TraceContext) -> Headers {
    let mut headers = Headers::default();
    headers.push_trace(context);
    headers
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
