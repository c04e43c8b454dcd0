//! What a runner needs of a log: three channels. An adapter (`crates/kafka`) owns the other ends.

use std::collections::BTreeSet;

use tokio::sync::{mpsc, oneshot, watch};

use crate::core::Transaction;
use crate::position::Position;
use crate::stage::{Delivery, TopicPartition};

/// What happened in the log. Order matters: records of a partition come after its assignment.
#[derive(Debug)]
pub enum Event {
    /// Partitions were given to this stage.
    Assigned {
        /// Number of this change of assignment; rises.
        assignment: u64,
        /// Each with the position committed for it, or the reason why it cannot be processed.
        partitions: Vec<(TopicPartition, Result<Position, String>)>,
    },
    /// Partitions are taken away. The log waits, within its own bound, until `done` is sent or dropped.
    Revoked {
        /// Number of this change of assignment; rises.
        assignment: u64,
        /// Which ones.
        partitions: Vec<TopicPartition>,
        /// They belong to somebody else already: nothing can be committed any more.
        lost: bool,
        /// To be sent when nothing of them is under way.
        done: oneshot::Sender<()>,
    },
    /// Records, in the order of their partitions.
    Records(Vec<Delivery>),
    /// Where a partition ends.
    End {
        /// Which one.
        partition: TopicPartition,
        /// Its last stable offset.
        last_stable: i64,
        /// Every record below this offset was handed over, and markers up to there count as passed.
        caught_up: Option<i64>,
    },
    /// The membership is over; whether another process has it is being found out, and told as one of the next two.
    Replaced(String),
    /// Nothing more comes: start again from what is committed.
    Ended(String),
    /// Another process with the same instance name took over.
    Fenced(String),
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Outputs and positions stand.
    Committed,
    /// Nothing stands: the same can be sent again.
    Aborted(String),
    /// Nothing stands, because of what a record of it is: the same would be refused again.
    Refused(String),
    /// It is not known, or the producer cannot go on: start again from what is committed.
    Restart(String),
    /// A newer producer of this name took over: that of another process, or the log's own, after a transaction expired.
    Fenced(String),
}

/// A transaction to carry out, and where to tell its outcome.
pub type Commit = (Transaction, oneshot::Sender<Outcome>);

/// A runner's ends of the channels.
#[derive(Debug)]
pub struct Link {
    /// What happens.
    pub events: mpsc::Receiver<Event>,
    /// Transactions, one at a time.
    pub commits: mpsc::Sender<Commit>,
    /// The partitions that must not be fetched now. A level, not an edge: the newest set counts.
    pub paused: watch::Sender<BTreeSet<TopicPartition>>,
}
