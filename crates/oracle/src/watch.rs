//! What the processes show while the storm goes on: memory, and partitions in quarantine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Result;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, PartitionState};
use millrace_testkit::Stack;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_millis(500);

/// What was seen of the services.
#[derive(Debug, Default)]
pub struct Watched {
    /// Peak resident memory of each instance, over all its processes, KiB.
    pub peak_kib: BTreeMap<String, u64>,
    /// Partitions that went into quarantine.
    pub quarantines: u64,
}

/// Looks until it is told to stop.
pub async fn watch(stack: &Stack, stop: &CancellationToken) -> Result<Watched> {
    let mut instances = Vec::new();
    for instance in stack.size.instances() {
        let part = instance.part();
        let channel = millrace_rpc::client::channel(stack.addresses.of(&part)?)?;
        instances.push((part, PipelineServiceClient::new(channel)));
    }
    let mut watched = Watched::default();
    let mut alone: BTreeMap<(String, i32), bool> = BTreeMap::new();
    let mut ticks = tokio::time::interval(EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for (part, client) in &mut instances {
            // One that is dead, or frozen, shows nothing.
            if let Some(peak) = stack
                .pid(part)
                .ok()
                .and_then(|pid| peak_kib(pid.as_raw_nonzero().get()))
            {
                let known = watched.peak_kib.entry(part.clone()).or_default();
                *known = peak.max(*known);
            }
            let Ok(Ok(answer)) = tokio::time::timeout(EVERY, client.get_pipeline(GetPipelineRequest {})).await else {
                continue;
            };
            for partition in answer.into_inner().stages.iter().flat_map(|stage| &stage.partitions) {
                let now = partition.state() == PartitionState::Quarantined;
                let before = alone.insert((part.clone(), partition.partition), now);
                watched.quarantines += u64::from(now && before != Some(true));
            }
        }
    }
    Ok(watched)
}

/// Peak resident memory of a process, KiB; none of one that is gone, and where there is no /proc.
pub fn peak_kib(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
