//! `PipelineService` of every process, and the readiness that follows from a stage.

use std::convert::Infallible;

use millrace_api::pipeline::v1 as api;
use millrace_api::pipeline::v1::pipeline_service_server::{PipelineService, PipelineServiceServer};
use millrace_flow::progress::{
    FailureSeen, PartitionProgress, PartitionState, ProgressReader, StageProgress, StageState,
};
use millrace_rpc::error;
use tonic::{Request, Response, Status};

use crate::readiness::{Condition, Readiness};
use crate::stage::StageHandle;

/// Answers GetPipeline from the stages' own progress.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// For example `millrace-ingest`.
    pub service: String,
    /// Stable name of this process in its consumer groups.
    pub instance: String,
    /// The stages of this process.
    pub stages: Vec<StageHandle>,
    /// Says why the process is not ready.
    pub readiness: Readiness,
}

impl Pipeline {
    /// The gRPC service.
    pub fn server(self) -> PipelineServiceServer<Self> {
        PipelineServiceServer::new(self)
    }

    fn hold(&self, name: &str, held: bool) -> Result<api::Stage, Status> {
        let Some(found) = self.stages.iter().find(|stage| stage.progress.borrow().name == name) else {
            let known: Vec<_> = self
                .stages
                .iter()
                .map(|stage| stage.progress.borrow().name.clone())
                .collect();
            let message = format!("no stage `{name}` here; known: {}", known.join(", "));
            return Err(error::not_found("stage", name, "STAGE_UNKNOWN", message).into());
        };
        tracing::info!(stage = name, held, "a stage was paused or resumed");
        found.hold(held);
        Ok(stage(&found.progress.borrow()))
    }

    /// The process at this moment.
    pub(crate) fn told(&self) -> api::GetPipelineResponse {
        api::GetPipelineResponse {
            service: self.service.clone(),
            instance: self.instance.clone(),
            stages: self.stages.iter().map(|s| stage(&s.progress.borrow())).collect(),
            not_ready: self.readiness.reasons(),
            impaired: self
                .stages
                .iter()
                .flat_map(|s| impaired(&s.progress.borrow()))
                .collect(),
        }
    }
}

#[tonic::async_trait]
impl PipelineService for Pipeline {
    async fn get_pipeline(
        &self,
        _request: Request<api::GetPipelineRequest>,
    ) -> Result<Response<api::GetPipelineResponse>, Status> {
        Ok(Response::new(self.told()))
    }

    async fn pause(&self, request: Request<api::PauseRequest>) -> Result<Response<api::PauseResponse>, Status> {
        let stage = Some(self.hold(&request.get_ref().stage, true)?);
        Ok(Response::new(api::PauseResponse { stage }))
    }

    async fn resume(&self, request: Request<api::ResumeRequest>) -> Result<Response<api::ResumeResponse>, Status> {
        let stage = Some(self.hold(&request.get_ref().stage, false)?);
        Ok(Response::new(api::ResumeResponse { stage }))
    }
}

/// Keeps a condition as the stage is: ready while it runs. Ends when the stage's runner is gone; spawn it with
/// [`crate::tasks::Tasks::spawn_once`].
pub async fn follow(mut stage: ProgressReader, condition: Condition) -> Result<(), Infallible> {
    loop {
        let why = why_not(&stage.borrow_and_update());
        match &why {
            None => condition.ready(),
            Some(why) => condition.not_ready(why),
        }
        // Counters move all the time; only another answer matters.
        if stage.wait_for(|progress| why_not(progress) != why).await.is_err() {
            condition.not_ready("the stage has ended");
            return Ok(());
        }
    }
}

/// | state | ready |
/// |---|---|
/// | running, something can be processed | yes |
/// | running, every partition stopped | no: the first one's reason |
/// | running, nothing leaves although it should | no: the stage's reason |
/// | paused | as running: the rest of the service goes on, and `impaired` tells of it |
/// | any other | no |
fn why_not(stage: &StageProgress) -> Option<String> {
    let stopped = |partition: &PartitionProgress| partition.state == PartitionState::Stopped;
    let plain = match stage.state {
        StageState::Running | StageState::Paused => match stage.partitions.first() {
            Some(first) if stage.partitions.iter().all(stopped) => {
                return Some(format!("every partition is stopped: {}", first.reason));
            }
            _ if stage.reason.is_empty() => return None,
            _ => "the stage is stuck",
        },
        StageState::Starting => "the stage waits for its broker and its partitions",
        StageState::Draining => "the stage is leaving",
        StageState::Stopped => "the stage has stopped",
    };
    Some(if stage.reason.is_empty() {
        plain.to_owned()
    } else {
        format!("{plain}: {}", stage.reason)
    })
}

/// What does not go on until somebody acts: a paused stage, and stopped partitions, each with its reason.
fn impaired(stage: &StageProgress) -> Vec<String> {
    let stopped = stage.partitions.iter().filter(|p| p.state == PartitionState::Stopped);
    let told = |p: &PartitionProgress| {
        format!(
            "stage {}: {}/{} is stopped: {}",
            stage.name, p.topic, p.partition, p.reason
        )
    };
    let paused =
        (stage.state == StageState::Paused).then(|| format!("stage {}: paused until it is resumed", stage.name));
    paused.into_iter().chain(stopped.map(told)).collect()
}

/// A stage in short, for whoever shows it in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// RUNNING, PAUSED, …
    pub state: &'static str,
    /// Of the partitions that know theirs.
    pub lag_records: i64,
    /// Partitions that do not.
    pub partitions_of_unknown_lag: usize,
    /// Age of the oldest record that is not finished, in milliseconds.
    pub lag_ms: i64,
}

impl Summary {
    /// Of a stage as GetPipeline tells it.
    pub fn of(stage: &api::Stage) -> Self {
        let (name, partitions) = (stage.state().as_str_name(), stage.partitions.iter());
        let known = partitions
            .clone()
            .map(|partition| partition.lag_records)
            .filter(|lag| *lag >= 0);
        Self {
            state: name.strip_prefix("STAGE_STATE_").unwrap_or(name),
            partitions_of_unknown_lag: stage.partitions.len() - known.clone().count(),
            lag_records: known.sum(),
            lag_ms: partitions.map(|partition| partition.lag_ms).max().unwrap_or(0),
        }
    }
}

fn stage(progress: &StageProgress) -> api::Stage {
    api::Stage {
        name: progress.name.clone(),
        consumer_group: progress.consumer_group.clone(),
        state: match progress.state {
            StageState::Starting => api::StageState::Starting,
            StageState::Running => api::StageState::Running,
            StageState::Draining => api::StageState::Draining,
            StageState::Stopped => api::StageState::Stopped,
            StageState::Paused => api::StageState::Paused,
        }
        .into(),
        partitions: progress.partitions.iter().map(partition).collect(),
        processed: count(progress.processed),
        failed: count(progress.failed),
        window_records: count(progress.window_records),
        window_bytes: count(progress.window_bytes),
        last_failures: progress.last_failures.iter().map(failure).collect(),
        gate: progress.gate.clone(),
        success_rate: success_rate(progress.recent),
    }
}

fn success_rate((processed, failed): (u64, u64)) -> f64 {
    match processed + failed {
        0 => 1.0,
        ended => processed as f64 / ended as f64,
    }
}

fn partition(progress: &PartitionProgress) -> api::PartitionProgress {
    api::PartitionProgress {
        topic: progress.topic.clone(),
        partition: progress.partition,
        position: progress.position,
        lag_records: progress.lag_records.unwrap_or(-1),
        lag_ms: progress.lag_ms,
        state: match progress.state {
            PartitionState::Running => api::PartitionState::Running,
            PartitionState::Paused => api::PartitionState::Paused,
            PartitionState::Quarantined => api::PartitionState::Quarantined,
            PartitionState::Draining => api::PartitionState::Draining,
            PartitionState::Stopped => api::PartitionState::Stopped,
        }
        .into(),
        reason: progress.reason.clone(),
    }
}

fn failure(seen: &FailureSeen) -> api::StageFailure {
    api::StageFailure {
        topic: seen.origin.topic.to_string(),
        partition: seen.origin.partition,
        offset: seen.origin.offset,
        key: seen.key.clone(),
        class: seen.class.to_owned(),
        reason: seen.reason.clone(),
        message: seen.message.clone(),
        at_ms: seen.at_ms,
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_flow::Origin;
    use tokio::sync::watch;

    fn progress() -> StageProgress {
        StageProgress {
            name: "parse".into(),
            consumer_group: "millrace.parse".into(),
            partitions: vec![
                PartitionProgress {
                    topic: "documents.submitted".into(),
                    partition: 3,
                    position: 7,
                    lag_records: Some(2),
                    ..PartitionProgress::default()
                },
                PartitionProgress {
                    topic: "documents.submitted".into(),
                    partition: 4,
                    state: PartitionState::Stopped,
                    reason: "unreadable position".into(),
                    ..PartitionProgress::default()
                },
            ],
            processed: u64::MAX,
            last_failures: vec![FailureSeen {
                origin: Origin {
                    topic: "documents.submitted".into(),
                    partition: 3,
                    offset: 8,
                },
                key: "t/d".into(),
                class: "INVALID",
                reason: "UNREADABLE_RECORD".into(),
                message: "no bytes".into(),
                at_ms: 5,
            }],
            ..StageProgress::default()
        }
    }

    #[tokio::test]
    async fn the_pipeline_is_told_as_it_is() {
        let (_sender, stage) = watch::channel(progress());
        let (readiness, _health) = Readiness::new(&[]);
        readiness.condition("kafka").not_ready("away");
        let pipeline = Pipeline {
            service: "millrace-ingest".into(),
            instance: "local-0".into(),
            stages: vec![StageHandle::new(stage, watch::Sender::new(false))],
            readiness,
        };
        let request = Request::new(api::GetPipelineRequest {});
        let told = pipeline.get_pipeline(request).await.unwrap().into_inner();
        assert_eq!(
            (told.service.as_str(), told.instance.as_str()),
            ("millrace-ingest", "local-0")
        );
        assert_eq!(told.not_ready, ["kafka: away"]);
        let impaired = ["stage parse: documents.submitted/4 is stopped: unreadable position"];
        assert_eq!(told.impaired, impaired);
        let stage = &told.stages[0];
        assert_eq!((stage.state(), stage.processed), (api::StageState::Starting, i64::MAX));
        assert_eq!(
            (stage.partitions[0].lag_records, stage.partitions[1].lag_records),
            (2, -1)
        );
        assert_eq!(stage.partitions[1].state(), api::PartitionState::Stopped);
        assert_eq!(
            (stage.last_failures[0].offset, stage.last_failures[0].class.as_str()),
            (8, "INVALID")
        );
    }

    #[tokio::test]
    async fn a_condition_follows_its_stage() {
        let (sender, stage) = watch::channel(progress());
        let (readiness, _health) = Readiness::new(&[]);
        let following = tokio::spawn(follow(stage, readiness.condition("stage parse")));
        sender.send_modify(|p| p.state = StageState::Running);
        readiness.ready().await;
        sender.send_modify(|p| {
            p.state = StageState::Stopped;
            p.reason = "fenced".into();
        });
        drop(sender);
        following.await.unwrap().unwrap();
        assert_eq!(readiness.reasons(), ["stage parse: the stage has ended"]);
    }

    #[test]
    fn a_reason_follows_the_state() {
        let mut stopped = StageProgress {
            state: StageState::Stopped,
            ..StageProgress::default()
        };
        assert_eq!(why_not(&stopped).as_deref(), Some("the stage has stopped"));
        stopped.reason = "fenced".into();
        assert_eq!(why_not(&stopped).as_deref(), Some("the stage has stopped: fenced"));
    }
}
