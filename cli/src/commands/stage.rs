//! `millrace stage`.

use anyhow::Result;
use millrace_api::pipeline::v1 as api;
use millrace_runtime::pipeline::Summary;
use serde_json::{Value, json};
use tonic::Status;

use crate::client::{CALL_LIMIT, Target, within};
use crate::exit::Shown;
use crate::output;
use crate::stages::{self, Client, STAGES, Told};

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
    let all = stages::ask(&stages::instances(target)?, CALL_LIMIT).await;
    let mut rows = vec![head.map(str::to_owned)];
    for Told { instance, answer } in &all {
        let Ok(told) = answer else { continue };
        for stage in &told.stages {
            match as_json {
                true => output::json(&stage_json(instance, told, stage)),
                false => rows.push(row(instance, stage)),
            }
        }
    }
    if !as_json {
        output::table(&rows);
    }
    // An object has its own notes in it.
    for told in all.iter().filter(|told| !as_json || told.answer.is_err()) {
        told.notes().iter().for_each(|note| eprintln!("{note}"));
    }
    match all.iter().filter(|told| told.answer.is_err()).count() {
        0 => Ok(()),
        1 => Err(Shown("a service does not answer".into()).into()),
        away => Err(Shown(format!("{away} services do not answer")).into()),
    }
}

fn row(instance: &str, stage: &api::Stage) -> [String; 9] {
    let summary = Summary::of(stage);
    [
        instance.to_owned(),
        stage.name.clone(),
        summary.state.to_owned(),
        stages::lag(&summary),
        format!("{:.1} s", summary.lag_ms as f64 / 1000.0),
        stage.window_records.to_string(),
        stage.processed.to_string(),
        stage.failed.to_string(),
        stages::success(stage),
    ]
}

fn stage_json(instance: &str, told: &api::GetPipelineResponse, stage: &api::Stage) -> Value {
    let summary = Summary::of(stage);
    json!({
        "instance": instance, "stage": stage.name, "state": summary.state, "partitions": stage.partitions.len(),
        "lag_records": summary.lag_records, "partitions_of_unknown_lag": summary.partitions_of_unknown_lag,
        "lag_ms": summary.lag_ms, "window_records": stage.window_records, "window_bytes": stage.window_bytes,
        "processed": stage.processed, "failed": stage.failed, "success_rate": stage.success_rate, "gate": stage.gate,
        "not_ready": told.not_ready, "impaired": told.impaired,
    })
}
