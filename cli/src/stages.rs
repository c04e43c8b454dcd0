//! Asking every instance of every service how its stages do, and what is wrong with it: for `stage list` and `top`.

use std::time::Duration;

use anyhow::Result;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, GetPipelineResponse, Stage};
use millrace_runtime::pipeline::Summary;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{Target, within};

/// Each stage with the service that has it, in the order a document meets them.
pub const STAGES: [(&str, &str); 3] = [("parse", "ingest"), ("embed", "embedder"), ("index", "indexer")];

/// A client of one instance.
pub type Client = PipelineServiceClient<Channel>;

/// What an instance answered.
#[derive(Debug)]
pub struct Told {
    /// For example `embedder-1`.
    pub instance: String,
    /// Its answer.
    pub answer: Result<GetPipelineResponse, Status>,
}

/// Every instance that the target has, by name.
pub fn instances(target: &Target) -> Result<Vec<(String, Client)>> {
    let mut all = Vec::new();
    for (_, service) in STAGES {
        all.extend(target.pipelines(service)?);
    }
    Ok(all)
}

/// Asks all of them at once.
pub async fn ask(instances: &[(String, Client)], limit: Duration) -> Vec<Told> {
    let asked = instances.iter().map(|(instance, client)| {
        let mut client = client.clone();
        async move {
            let answer = client.get_pipeline(within(GetPipelineRequest {}, limit)).await;
            Told {
                instance: instance.clone(),
                answer: answer.map(tonic::Response::into_inner),
            }
        }
    });
    futures::future::join_all(asked).await
}

impl Told {
    /// What is wrong with it, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let instance = &self.instance;
        let told = match &self.answer {
            Ok(told) => told,
            Err(status) => {
                let why = millrace_rpc::error::describe(status);
                return vec![format!("{instance}: does not answer: {why}")];
            }
        };
        let not_ready = told.not_ready.iter().map(|why| format!("{instance}: not ready: {why}"));
        let impaired = told.impaired.iter().map(|why| format!("{instance}: {why}"));
        let gates = told
            .stages
            .iter()
            .map(|stage| &stage.gate)
            .filter(|gate| !gate.is_empty());
        let gates = gates.map(|gate| format!("{instance}: gate {gate}"));
        not_ready.chain(impaired).chain(gates).collect()
    }
}

/// Lag in records, with a mark where partitions do not know theirs.
pub fn lag(summary: &Summary) -> String {
    let more = if summary.partitions_of_unknown_lag > 0 {
        "+?"
    } else {
        ""
    };
    format!("{}{more}", summary.lag_records)
}

/// Of the records that ended of late, the share that was not given up.
pub fn success(stage: &Stage) -> String {
    format!("{:.1} %", stage.success_rate * 100.0)
}
