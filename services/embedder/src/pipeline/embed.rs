//! The embed stage: a part of `documents.parsed` becomes a part of `chunks.embedded`.
//!
//! | part | becomes |
//! |---|---|
//! | with chunks | the same with a vector for each chunk, once all are computed |
//! | a delete, or without chunks | the same, stamped with the model: the indexer must know which generation is meant |
//! | of a kind that this build does not know | Invalid `KIND_UNKNOWN` |
//! | with a chunk that the model does not take | Invalid `CHUNK_EMPTY`, `CHUNK_TOO_LONG` or `CHUNK_REFUSED` |
//! | with a chunk that the model fails on while it works for others | Failed `MODEL_FAILED` |
//! | any, while the model does not compute at all | Transient `MODEL_UNAVAILABLE` |
//! | any, while the model's endpoint asks for patience | RateLimited `MODEL_RATE_LIMITED` |
//! | any, while the model's endpoint refuses us | Config `MODEL_REFUSED` |

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use millrace_events::{
    ChunksEmbedded, DocumentKey, DocumentParsed, EmbeddedChunk, Epoch, Kind, TextChunk, topics, vector_to_bytes,
};
use millrace_failpoints::points;
use millrace_flow::{Delivery, Failure, Output, Outputs};
use millrace_runtime::codec::{Codec, carried_headers};
use tower::Service;

use crate::batch::{Class, EmbedError, Embedder};
use crate::model::{Outage, TextError, Vector};

/// For people and metrics.
pub const NAME: &str = "embed";
/// Consumer group.
pub const GROUP: &str = "millrace.embed";

/// The stage. Parts of any number of documents share the model's batches through the [`Embedder`].
#[derive(Debug, Clone)]
pub struct Embed {
    embedder: Embedder,
    codec: Codec,
    output: String,
}

impl Embed {
    /// Writes to `chunks.embedded` of an epoch.
    pub fn new(embedder: Embedder, codec: Codec, epoch: Epoch) -> Self {
        Self {
            embedder,
            codec,
            output: topics::EMBEDDED.in_epoch(epoch),
        }
    }

    async fn run(self, delivery: Delivery) -> Result<Outputs, Failure> {
        let key = delivery
            .key
            .clone()
            .ok_or_else(|| invalid("NO_KEY", "the record has no key"))?;
        let value = delivery
            .value
            .as_ref()
            .ok_or_else(|| invalid("NO_VALUE", "the record has no value"))?;
        let part: DocumentParsed = self.codec.decode(value).await?;
        let document = part.document().map_err(|e| invalid("IDENTITY_INVALID", e))?;
        if DocumentKey::from_bytes(&key).as_ref() != Ok(&document) {
            return Err(invalid(
                "KEY_MISMATCH",
                format!("the record of {document} is under another key"),
            ));
        }
        let embedded = embed(&self.embedder, part).await?;
        points::PART_EMBEDDED.reached();
        Ok(Outputs(vec![Output {
            topic: self.output,
            partition: None,
            key,
            value: Some(self.codec.encode(&embedded)?),
            headers: carried_headers(&delivery),
        }]))
    }
}

impl Service<Delivery> for Embed {
    type Response = Outputs;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Outputs, Failure>>;

    // The queue before the model pushes back where it matters: a call waits there for room.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        Box::pin(self.clone().run(delivery))
    }
}

/// A part with its vectors.
pub async fn embed(embedder: &Embedder, part: DocumentParsed) -> Result<ChunksEmbedded, Failure> {
    part.checked_revision().map_err(|e| invalid("IDENTITY_INVALID", e))?;
    if part.kind == Kind::Unknown {
        let message = "the part's kind is none that this build knows: deploy one that does";
        return Err(invalid("KIND_UNKNOWN", message));
    }
    let texts = part.chunks.iter().map(|chunk| chunk.text.clone()).collect();
    let vectors = embedder
        .of_tenant(&part.tenant)
        .embed(texts, Class::Document)
        .await
        .map_err(|e| failure(e, &part.chunks))?;
    let chunks = part
        .chunks
        .into_iter()
        .zip(&vectors)
        .map(|(chunk, vector)| embedded(chunk, vector));
    Ok(ChunksEmbedded {
        tenant: part.tenant,
        document_id: part.document_id,
        revision: part.revision,
        accepted_at_ms: part.accepted_at_ms,
        kind: part.kind,
        part: part.part,
        parts: part.parts,
        chunk_count: part.chunk_count,
        offsets_in: part.offsets_in,
        model: embedder.info().model.clone(),
        chunks: chunks.collect(),
    })
}

fn embedded(chunk: TextChunk, vector: &Vector) -> EmbeddedChunk {
    EmbeddedChunk {
        ordinal: chunk.ordinal,
        text: chunk.text,
        start_byte: chunk.start_byte,
        end_byte: chunk.end_byte,
        section: chunk.section,
        tokens: chunk.tokens,
        vector: vector_to_bytes(vector.values()),
    }
}

fn invalid(reason: &'static str, message: impl ToString) -> Failure {
    Failure::Invalid {
        reason,
        message: message.to_string(),
    }
}

fn failure(error: EmbedError, chunks: &[TextChunk]) -> Failure {
    let ordinal = |index: usize| chunks.get(index).map_or(-1, |chunk| chunk.ordinal);
    match error {
        EmbedError::Text { index, source } => {
            let reason = match source {
                TextError::Empty => "CHUNK_EMPTY",
                TextError::TooManyTokens { .. } | TextError::TooManyBytes { .. } => "CHUNK_TOO_LONG",
                // Without the tokenizer's words: they may quote the text.
                TextError::Refused(_) => {
                    return invalid(
                        "CHUNK_REFUSED",
                        format!("the tokenizer refuses chunk {}", ordinal(index)),
                    );
                }
            };
            invalid(reason, format!("chunk {}: {source}", ordinal(index)))
        }
        EmbedError::Refused { index, why } => invalid(
            "CHUNK_REFUSED",
            format!("the model refuses chunk {}: {why}", ordinal(index)),
        ),
        EmbedError::Failed { index, why } => Failure::Failed {
            reason: "MODEL_FAILED",
            message: format!("the model fails on chunk {}: {why}", ordinal(index)),
        },
        EmbedError::Outage(Outage::RateLimited { retry_after }) => Failure::RateLimited {
            reason: "MODEL_RATE_LIMITED",
            message: error.to_string(),
            retry_after,
        },
        EmbedError::Outage(Outage::Config(_)) => Failure::Config {
            reason: "MODEL_REFUSED",
            message: error.to_string(),
        },
        // Documents wait for room and are not refused for want of it; should that change, it is no fault of theirs.
        EmbedError::Busy | EmbedError::Outage(Outage::Broken(_)) | EmbedError::Stopped => Failure::Transient {
            reason: "MODEL_UNAVAILABLE",
            message: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_events::{OffsetsIn, vector_from_bytes};

    use super::*;
    use crate::batch::fake::{self, Fake};

    fn part(texts: &[&str]) -> DocumentParsed {
        let chunk = |(at, text): (usize, &&str)| TextChunk {
            ordinal: 32 + at as i32,
            text: (*text).into(),
            start_byte: 100 + at as i64,
            end_byte: 200 + at as i64,
            section: vec!["Guide".into()],
            tokens: 7,
        };
        DocumentParsed {
            tenant: "acme".into(),
            document_id: "guide".into(),
            revision: (1 << 48) + 5,
            accepted_at_ms: 9,
            kind: Kind::Upsert,
            part: 1,
            parts: 2,
            chunk_count: 34,
            media_type: "text/plain".into(),
            offsets_in: OffsetsIn::Body,
            chunks: texts.iter().enumerate().map(chunk).collect(),
        }
    }

    async fn with_embedder<F: Future<Output = ()>>(test: impl FnOnce(Embedder, Fake) -> F) {
        let (embedder, batcher, fake) = fake::batcher();
        let (ended, ()) = tokio::join!(batcher.run(), test(embedder, fake));
        ended.unwrap();
    }

    #[tokio::test]
    async fn a_part_keeps_all_it_was_and_gains_vectors() {
        with_embedder(|embedder, _| async move {
            let embedded = embed(&embedder, part(&["a a b", "b"])).await.unwrap();
            assert_eq!(
                (embedded.tenant.as_str(), embedded.document_id.as_str()),
                ("acme", "guide")
            );
            assert_eq!((embedded.revision, embedded.accepted_at_ms), ((1 << 48) + 5, 9));
            assert_eq!((embedded.part, embedded.parts, embedded.chunk_count), (1, 2, 34));
            assert_eq!((embedded.kind, embedded.offsets_in), (Kind::Upsert, OffsetsIn::Body));
            assert_eq!(embedded.model, embedder.info().model);
            let vectors: Vec<_> = embedded
                .chunks
                .iter()
                .map(|chunk| vector_from_bytes(&chunk.vector, 2).unwrap())
                .collect();
            assert_eq!(vectors, [[2.0, 1.0], [0.0, 1.0]]);
            let second = &embedded.chunks[1];
            assert_eq!((second.ordinal, second.text.as_str(), second.tokens), (33, "b", 7));
            assert_eq!(
                (second.start_byte, second.end_byte, second.section.len()),
                (101, 201, 1)
            );
        })
        .await;
    }

    #[tokio::test]
    async fn deletes_and_empty_parts_pass_with_the_model_stamped() {
        with_embedder(|embedder, fake| async move {
            for kind in [Kind::Delete, Kind::Upsert] {
                let empty = DocumentParsed { kind, ..part(&[]) };
                let passed = embed(&embedder, empty).await.unwrap();
                assert_eq!((passed.kind, passed.chunks.len()), (kind, 0));
                assert_eq!(passed.model.generation(), "fake-f32-2-00000000");
            }
            assert_eq!(fake.calls(), 0);
        })
        .await;
    }

    /// A row for each error of the model.
    #[test]
    fn each_error_of_the_model_has_its_class() {
        let chunks = part(&["a", "SECRET"]).chunks;
        let text = |source| EmbedError::Text { index: 1, source };
        let (tokens, max_tokens, bytes, max_bytes) = (9, 8, 513, 512);
        let (index, retry_after) = (1, Duration::from_secs(7));
        let failed = |why: &str| EmbedError::Failed { index, why: why.into() };
        let refused = |why: &str| EmbedError::Refused { index, why: why.into() };
        let rows = [
            (text(TextError::Empty), "INVALID", "CHUNK_EMPTY"),
            (
                text(TextError::TooManyTokens { tokens, max_tokens }),
                "INVALID",
                "CHUNK_TOO_LONG",
            ),
            (
                text(TextError::TooManyBytes { bytes, max_bytes }),
                "INVALID",
                "CHUNK_TOO_LONG",
            ),
            (text(TextError::Refused("SECRET".into())), "INVALID", "CHUNK_REFUSED"),
            (refused("HTTP 400"), "INVALID", "CHUNK_REFUSED"),
            (failed("NaN"), "FAILED", "MODEL_FAILED"),
            (
                EmbedError::Outage(Outage::RateLimited { retry_after }),
                "RATE_LIMITED",
                "MODEL_RATE_LIMITED",
            ),
            (
                EmbedError::Outage(Outage::Config("HTTP 401".into())),
                "CONFIG",
                "MODEL_REFUSED",
            ),
            (EmbedError::Busy, "TRANSIENT", "MODEL_UNAVAILABLE"),
            (
                EmbedError::Outage(Outage::Broken("out of memory".into())),
                "TRANSIENT",
                "MODEL_UNAVAILABLE",
            ),
            (EmbedError::Stopped, "TRANSIENT", "MODEL_UNAVAILABLE"),
        ];
        for (error, class, reason) in rows {
            let failure = failure(error.clone(), &chunks);
            assert_eq!((failure.class(), failure.reason()), (class, reason), "{error}");
            assert!(!failure.message().contains("SECRET"), "{failure}");
            if let Failure::RateLimited { retry_after: told, .. } = failure {
                assert_eq!(told, retry_after);
            }
        }
    }

    #[tokio::test]
    async fn failures_are_of_the_right_class() {
        with_embedder(|embedder, fake| async move {
            let long = "a ".repeat(17);
            let unknown = DocumentParsed {
                kind: Kind::Unknown,
                ..part(&["a"])
            };
            let revision = DocumentParsed {
                revision: 5,
                ..part(&["a"])
            };
            for (part, class, reason) in [
                (part(&["a", " "]), "INVALID", "CHUNK_EMPTY"),
                (part(&["a", &long]), "INVALID", "CHUNK_TOO_LONG"),
                (part(&["a", "b b b"]), "FAILED", "MODEL_FAILED"),
                (unknown, "INVALID", "KIND_UNKNOWN"),
                (revision, "INVALID", "IDENTITY_INVALID"),
            ] {
                let failure = embed(&embedder, part).await.unwrap_err();
                assert_eq!((failure.class(), failure.reason()), (class, reason));
                if reason.starts_with("CHUNK") || class == "FAILED" {
                    assert!(failure.message().contains("chunk 33"), "{failure}");
                }
            }
            fake.break_down(true);
            let failure = embed(&embedder, part(&["a"])).await.unwrap_err();
            assert_eq!((failure.class(), failure.reason()), ("TRANSIENT", "MODEL_UNAVAILABLE"));
        })
        .await;
    }
}
