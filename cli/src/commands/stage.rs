//! `millrace stage`.

use anyhow::Result;
use millrace_api::pipeline::v1 as api;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{CALL_LIMIT, Target, within};
use crate::exit::Shown;
use crate::output;

/// See how the stages do; pause and resume one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace stage list                    every stage of every service: state, lag, success rate, what is wrong
  millrace stage list --json             one object a stage and line
  millrace stage pause embed             nothing more is embedded; documents are accepted and found as before
  millrace stage resume embed
  millrace stage list --indexer http://indexer.example:7703      services elsewhere, by their addresses

A pause lasts until it is resumed or the process ends; what runs is finished. With several instances all of them are told.")]
pub struct StageOf {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Every stage, with what is wrong with it
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Have a stage start nothing more
    Pause {
        /// Which one
        #[arg(value_parser = STAGES.map(|(stage, _)| stage))]
        stage: String,
    },
    /// Have a paused stage go on
    Resume {
        /// Which one
        #[arg(value_parser = STAGES.map(|(stage, _)| stage))]
        stage: String,
    },
}

/// Which service has it.
const STAGES: [(&str, &str); 3] = [("parse", "ingest"), ("embed", "embedder"), ("index", "indexer")];

/// Lists, pauses or resumes.
pub async fn run(command: StageOf, target: &Target) -> Result<()> {
    match command.action {
        Action::List { json } => list(target, json).await,
        Action::Pause { stage } => {
            told(
                having(target, &stage)?,
                "is paused",
                async |mut client, request| {
                    client
                        .pause(within(api::PauseRequest { stage: request }, CALL_LIMIT))
                        .await
                        .map(|_| ())
                },
                &stage,
            )
            .await
        }
        Action::Resume { stage } => {
            told(
                having(target, &stage)?,
                "goes on",
                async |mut client, request| {
                    client
                        .resume(within(api::ResumeRequest { stage: request }, CALL_LIMIT))
                        .await
                        .map(|_| ())
                },
                &stage,
            )
            .await
        }
    }
}

/// Tells every instance; those that do not answer are named at the end.
async fn told(
    instances: Vec<(String, Client)>,
    then: &str,
    call: impl AsyncFn(Client, String) -> Result<(), Status>,
    stage: &str,
) -> Result<()> {
    let mut failed = None;
    for (instance, client) in instances {
        match call(client, stage.to_owned()).await {
            Ok(()) => output::line(format_args!("{instance}: {stage} {then}")),
            Err(status) => failed = Some(anyhow::Error::from(status).context(instance)),
        }
    }
    failed.map_or(Ok(()), Err)
}

type Client = PipelineServiceClient<Channel>;

fn having(target: &Target, stage: &str) -> Result<Vec<(String, Client)>> {
    let service = STAGES
        .iter()
        .find(|(name, _)| *name == stage)
        .map_or("", |(_, service)| *service);
    target.pipelines(service)
}

async fn list(target: &Target, as_json: bool) -> Result<()> {
    let head = [
        "INSTANCE", "STAGE", "STATE", "LAG", "OLDEST", "WINDOW", "DONE", "GIVEN UP", "SUCCESS",
    ];
    let (mut rows, mut notes, mut away) = (vec![head.map(str::to_owned)], Vec::new(), 0);
    for (_, service) in STAGES {
        for (instance, mut client) in target.pipelines(service)? {
            let answer = client
                .get_pipeline(within(api::GetPipelineRequest {}, CALL_LIMIT))
                .await;
            let told = match answer {
                Ok(told) => told.into_inner(),
                Err(status) => {
                    away += 1;
                    notes.push(format!(
                        "{instance}: does not answer: {}",
                        millrace_rpc::error::describe(&status)
                    ));
                    continue;
                }
            };
            notes.extend(told.not_ready.iter().map(|why| format!("{instance}: not ready: {why}")));
            notes.extend(told.impaired.iter().map(|why| format!("{instance}: {why}")));
            for stage in &told.stages {
                if as_json {
                    output::json(&stage_json(&instance, &told, stage));
                }
                notes.extend(Some(format!("{instance}: gate {}", stage.gate)).filter(|_| !stage.gate.is_empty()));
                rows.push(row(&instance, stage));
            }
        }
    }
    if as_json {
        notes.retain(|note| note.contains("does not answer"));
    } else {
        output::table(&rows);
    }
    for note in notes {
        eprintln!("{note}");
    }
    match away {
        0 => Ok(()),
        1 => Err(Shown("a service does not answer".into()).into()),
        away => Err(Shown(format!("{away} services do not answer")).into()),
    }
}

/// Known lag of all partitions; how many of them do not know theirs.
fn lag(stage: &api::Stage) -> (i64, usize) {
    let known = stage.partitions.iter().filter(|partition| partition.lag_records >= 0);
    let unknown = stage.partitions.len() - known.clone().count();
    (known.map(|partition| partition.lag_records).sum(), unknown)
}

fn oldest_ms(stage: &api::Stage) -> i64 {
    stage
        .partitions
        .iter()
        .map(|partition| partition.lag_ms)
        .max()
        .unwrap_or(0)
}

fn state(stage: &api::Stage) -> &'static str {
    let name = stage.state().as_str_name();
    name.strip_prefix("STAGE_STATE_").unwrap_or(name)
}

fn row(instance: &str, stage: &api::Stage) -> [String; 9] {
    let (records, unknown) = lag(stage);
    [
        instance.to_owned(),
        stage.name.clone(),
        state(stage).to_owned(),
        format!("{records}{}", if unknown > 0 { "+?" } else { "" }),
        format!("{:.1} s", oldest_ms(stage) as f64 / 1000.0),
        stage.window_records.to_string(),
        stage.processed.to_string(),
        stage.failed.to_string(),
        format!("{:.1} %", stage.success_rate * 100.0),
    ]
}

fn stage_json(instance: &str, told: &api::GetPipelineResponse, stage: &api::Stage) -> Value {
    let (records, unknown) = lag(stage);
    json!({
        "instance": instance, "stage": stage.name, "state": state(stage), "partitions": stage.partitions.len(),
        "lag_records": records, "partitions_of_unknown_lag": unknown, "lag_ms": oldest_ms(stage),
        "window_records": stage.window_records, "window_bytes": stage.window_bytes, "processed": stage.processed,
        "failed": stage.failed, "success_rate": stage.success_rate, "gate": stage.gate,
        "not_ready": told.not_ready, "impaired": told.impaired,
    })
}
