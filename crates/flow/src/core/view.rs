//! What the core shows of itself.

use super::partition::LogEnd;
use super::{Core, Partition};
use crate::progress::{PartitionProgress, PartitionState, StageProgress};
use crate::stage::TopicPartition;

impl Core {
    /// The log said where a partition ends, and whether everything up to there was handed over.
    pub fn log_end(&mut self, partition: &TopicPartition, last_stable: i64, caught_up: bool) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.end = Some(LogEnd { last_stable, caught_up });
        }
    }

    /// Fills in everything that the core knows.
    pub fn show(&self, progress: &mut StageProgress, now_ms: i64) {
        progress.partitions = self.partitions.iter().map(|(id, p)| p.show(id, now_ms)).collect();
        progress.processed = self.processed;
        progress.failed = self.failed;
        progress.window_records = self.partitions.values().map(|p| p.len() as u64).sum();
        progress.window_bytes = self.partitions.values().map(|p| p.bytes as u64).sum();
        progress.last_failures = self.failures.iter().cloned().collect();
    }
}

impl Partition {
    fn show(&self, id: &TopicPartition, now_ms: i64) -> PartitionProgress {
        let position = self.window.lowest_unfinished();
        let lag = |end: LogEnd| match self.is_idle() && end.caught_up {
            true => 0,
            false => (end.last_stable - position).max(0),
        };
        PartitionProgress {
            topic: id.topic.to_string(),
            partition: id.partition,
            position,
            lag_records: self.end.map(lag),
            lag_ms: self.oldest_ms().map_or(0, |oldest| (now_ms - oldest).max(0)),
            state: match (&self.stopped, self.draining, self.paused) {
                (Some(_), _, _) => PartitionState::Stopped,
                (None, true, _) => PartitionState::Draining,
                (None, false, true) => PartitionState::Paused,
                (None, false, false) => PartitionState::Running,
            },
            reason: self.stopped.clone().unwrap_or_default(),
        }
    }
}
