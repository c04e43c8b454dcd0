//! What the core shows of itself.

use std::time::{Duration, Instant};

use super::partition::LogEnd;
use super::{Core, Partition};
use crate::progress::{PartitionProgress, PartitionState, StageProgress};

impl Core {
    /// Fills in everything that the core knows.
    pub fn show(&self, progress: &mut StageProgress, now: Instant, now_ms: i64) {
        progress.partitions = self
            .partitions
            .values()
            .map(|partition| partition.show(now_ms))
            .collect();
        progress
            .partitions
            .sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let shut = |(shut, why): (Duration, &str)| format!("shut for {} s: {why}", shut.as_secs());
        progress.gate = self.gate.in_force(now).map(shut).unwrap_or_default();
        progress.processed = self.processed;
        progress.failed = self.failed;
        progress.recent = self.rate.counts(now);
        progress.window_records = self.partitions.values().map(|p| p.len() as u64).sum();
        progress.window_bytes = self.partitions.values().map(|p| p.bytes as u64).sum();
        progress.last_failures = self.failures.iter().cloned().collect();
    }
}

impl Partition {
    fn show(&self, now_ms: i64) -> PartitionProgress {
        let position = self.window.lowest_unfinished();
        let lag = |end: LogEnd| match self.is_idle() && end.caught_up {
            true => 0,
            false => (end.last_stable - position).max(0),
        };
        PartitionProgress {
            topic: self.id.topic.to_string(),
            partition: self.id.partition,
            position,
            lag_records: self.end.map(lag),
            lag_ms: self.oldest_ms().map_or(0, |oldest| (now_ms - oldest).max(0)),
            state: match (&self.stopped, self.draining, self.paused) {
                (Some(_), _, _) => PartitionState::Stopped,
                (None, true, _) => PartitionState::Draining,
                (None, false, _) if self.quarantine.is_alone() => PartitionState::Quarantined,
                (None, false, true) => PartitionState::Paused,
                (None, false, false) => PartitionState::Running,
            },
            reason: self.stopped.clone().or_else(|| self.alone()).unwrap_or_default(),
        }
    }

    fn alone(&self) -> Option<String> {
        let starts = self.quarantine.mark().starts;
        let now = self
            .quarantine
            .chosen()
            .map(|offset| format!(", now offset {offset}"))
            .unwrap_or_default();
        let told = || format!("its last start came to nothing (start {starts}): one record at a time{now}");
        self.quarantine.is_alone().then(told)
    }
}
