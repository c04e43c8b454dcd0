//! The stage runtime's Kafka adapter, and the only crate that names rdkafka.
//!
//! Promises:
//! - **Exactly once, log to log.** Outputs and positions are committed in one transaction; a commit happens only under
//!   the assignment under which it was cut ([`transactor`]).
//! - **Polling never stops.** Work, full windows and transactions wait elsewhere; only the revoke callback waits, within
//!   a bound, while heartbeats go on ([`consumer`], [`member`]).
//! - **Outages are waited for.** A broker that is away ends no stage: a session that cannot go on is replaced by a new
//!   one from committed positions ([`stage`]).
//! - **A client that stands still is replaced.** A partition that its client has lost without a word is found by what the
//!   cluster says of its end, by stages and readers alike ([`stalled`]).
//! - **One process a name.** A stage ends when another process takes its instance's name, and only then ([`rival`]).
//!
//! Parts: [`stage`] runs a stage over sessions of one consumer thread and one producer thread; [`producer`] writes
//! single records with a receipt; [`batch`] writes batches whole or not at all; [`tail`] reads a whole topic without a
//! group; [`admin`] creates and describes topics; [`partitioner`] says where a key lives.
//!
//! Rejected: `StreamConsumer` and `split_partition_queue` (callbacks run only while somebody polls the main queue; a
//! dropped queue orphans its partition), the consumer's own offset store and auto-commit, one producer a partition.

pub mod admin;
pub mod batch;
pub mod config;
mod consumer;
mod convert;
mod joining;
mod member;
pub mod partitioner;
mod positions;
pub mod producer;
mod reports;
mod rival;
pub mod stage;
mod stalled;
pub mod tail;
mod trace;
mod transactor;
pub mod yardstick;

pub use admin::{Admin, AdminError, Created, NewTopic, TopicInfo};
pub use batch::{BatchError, BatchWriter};
pub use config::{ConfigError, KafkaConfig};
pub use producer::{Producer, SendError, Sent};
pub use stage::{StageConfig, StageError, StageTask, StageWork, stage};
pub use tail::{Tail, TailConfig, TailEvent, tail};
