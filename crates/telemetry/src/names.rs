//! Names of spans' attributes: OpenTelemetry's semantic conventions 1.44 (messaging and rpc), and of the working group for
//! generative AI; ours begin with `millrace.`.
//!
//! The conventions for messaging are in development, those for RPC a release candidate: a name that changes is changed
//! here, and [`SCHEMA_URL`] with it.

/// The version that these names are of.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Why a span failed: a stable code, or Kafka's own name of an error.
pub const ERROR_TYPE: &str = "error.type";

/// `kafka`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// `send`, `process` or `commit`.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// `send`, `process` or `settle`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The topic.
pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";
/// The partition, as text.
pub const MESSAGING_PARTITION: &str = "messaging.destination.partition.id";
/// The consumer group.
pub const MESSAGING_GROUP: &str = "messaging.consumer.group.name";
/// Records of a batch.
pub const MESSAGING_BATCH: &str = "messaging.batch.message_count";
/// The offset.
pub const MESSAGING_OFFSET: &str = "messaging.kafka.offset";
/// The record's key.
pub const MESSAGING_KEY: &str = "messaging.kafka.message.key";
/// Set, to true, on a record without a value.
pub const MESSAGING_TOMBSTONE: &str = "messaging.kafka.message.tombstone";

/// `grpc`.
pub const RPC_SYSTEM: &str = "rpc.system.name";
/// `package.Service/Method`.
pub const RPC_METHOD: &str = "rpc.method";
/// The status, `OK` or another name of gRPC's. A later version of the conventions calls it `rpc.status_code`.
pub const RPC_STATUS: &str = "rpc.response.status_code";
/// Host that is called.
pub const SERVER_ADDRESS: &str = "server.address";
/// Port that is called.
pub const SERVER_PORT: &str = "server.port";

/// `embeddings`.
pub const GEN_AI_OPERATION: &str = "gen_ai.operation.name";
/// What computes: `onnxruntime`, `openai`, …
pub const GEN_AI_PROVIDER: &str = "gen_ai.provider.name";
/// The model's id.
pub const GEN_AI_MODEL: &str = "gen_ai.request.model";
/// Values of a vector.
pub const GEN_AI_DIMENSIONS: &str = "gen_ai.embeddings.dimension.count";
/// Tokens that were asked for, without padding.
pub const GEN_AI_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";

/// The stage that works on a record.
pub const STAGE: &str = "millrace.stage";
/// Which attempt it is, from 1.
pub const ATTEMPT: &str = "millrace.attempt";
/// Why an attempt failed: TRANSIENT, INVALID, …
pub const FAILURE_CLASS: &str = "millrace.failure.class";
/// A stable code that says why: UPPER_SNAKE.
pub const REASON: &str = "millrace.failure.reason";
/// The document, as `tenant/document_id`.
pub const DOCUMENT: &str = "millrace.document";
/// Its revision.
pub const REVISION: &str = "millrace.revision";
/// Requests whose texts a batch of the model has: as many as it has links.
pub const BATCH_REQUESTS: &str = "millrace.batch.requests";
/// Texts of a batch of the model.
pub const BATCH_TEXTS: &str = "millrace.batch.texts";
/// Tokens that the model computed, padding among them.
pub const BATCH_PADDED_TOKENS: &str = "millrace.batch.padded_tokens";
/// What computes embeddings: cuda, cpu, endpoint.
pub const BACKEND: &str = "millrace.backend";
/// Texts of a request whose vectors were computed before and remembered.
pub const CACHE_TEXTS: &str = "millrace.cache.texts";
/// What came of looking for a remembered vector: hit, miss, error.
pub const CACHE_RESULT: &str = "millrace.cache.result";
/// Points that were written to the index.
pub const POINTS: &str = "millrace.index.points";

/// Every span: its name, its kind, whose child it is, when it begins and ends.
pub const SPANS: &[[&str; 4]] = &[
    [
        "`<package.Service>/<Method>`",
        "SERVER",
        "the caller's, from its `traceparent`",
        "a call that is answered, until its last message; not health and reflection",
    ],
    [
        "`<package.Service>/<Method>`",
        "CLIENT",
        "the call that it is made for",
        "a call to another service: a search's to the embedder",
    ],
    [
        "`send <topic>`",
        "PRODUCER",
        "the call or the `process` that writes the record",
        "handed to the client, until acknowledged or committed",
    ],
    [
        "`process <topic>`",
        "CONSUMER",
        "the record's `send`, which it is linked to as well",
        "received, until what came of it is committed: waiting, every attempt and the transaction",
    ],
    [
        "`parse`, `embed`, `index`",
        "INTERNAL",
        "`process`",
        "an attempt; linked to its batch of the model",
    ],
    [
        "`embeddings <model>`",
        "CLIENT",
        "none: linked to every request in it, and they to it",
        "a batch that the model computes",
    ],
    [
        "`index heads`, `write`, `count`, `unstage`, `move head`, `flush`, `search`",
        "INTERNAL",
        "the attempt or the search",
        "a call of the index",
    ],
    [
        "`searchable`",
        "INTERNAL",
        "`index`",
        "the moment from which every search sees the revision; it takes no time",
    ],
    [
        "`commit <topic>`",
        "CLIENT",
        "none: linked to every record that it finishes",
        "a transaction, until its outcome is known",
    ],
];
