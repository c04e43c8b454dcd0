//! `millrace submit`.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::ingest::v1::{Document, DocumentState, Receipt, SubmitDocumentRequest};
use millrace_events::Lane;
use serde_json::json;
use tonic::transport::Channel;
use uuid::Uuid;

use super::document::{document_json, receipt_json, state_name, until_final};
use super::topics;
use crate::client::{CALL_LIMIT, Target, explain, within};
use crate::exit::Shown;
use crate::files::{self, Item};
use crate::output::{self, Progress};
use crate::retry::Retry;

/// Submit files, directories or stdin
///
/// Of a directory every .md, .markdown and .txt file below it is taken; its document id is its path below that
/// directory. A single file's id is its name. Submitting an id again replaces the document.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace submit README.md --wait              returns when a search finds it
  millrace submit docs/ notes/ --tenant acme
  millrace submit archive/ --lane bulk          new documents, in a lane that the stack has: millrace up --lane bulk
  generate | millrace submit - --id report.md
  millrace submit docs/ --wait --json           one object a document:
    {\"tenant\":\"default\",\"document\":\"guides/intro.md\",\"revision\":\"281474976710663\",\"state\":\"INDEXED\",\"chunks\":4,…}")]
pub struct Submit {
    /// Files, directories, or - for stdin
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Whose documents
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Wait until each reaches its final state
    #[arg(long)]
    wait: bool,
    /// Document id, for stdin or a single file
    #[arg(long)]
    id: Option<String>,
    /// text/markdown or text/plain [default: by the id's ending, else text/plain]
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// Put new documents into this lane [default: their tenant's, else the base lane]
    #[arg(long, value_name = "NAME", value_parser = topics::lane)]
    lane: Option<Lane>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Submissions on their way at once.
const IN_FLIGHT: usize = 32;
/// Documents waited for at once: below the streams that a connection may have.
const WATCHED: usize = 128;

/// What became of one document.
enum Outcome {
    Accepted(Receipt),
    Final(Document),
    Refused { id: String, error: anyhow::Error },
}

/// Submits all, and fails if one of them did.
pub async fn run(command: Submit, target: &Target) -> Result<()> {
    let client = target.ingest()?;
    let progress = Progress::stderr();
    let items = files::collect(&command.paths, command.id.as_deref())?;
    let total = items.len();
    if total == 0 {
        bail!(
            "there is no .md, .markdown or .txt file below {}",
            command.paths.join(", ")
        );
    }
    let started = Instant::now();
    let step = progress.step(if command.wait {
        "submitting, indexing"
    } else {
        "submitting"
    });
    let accept = |item: Item| {
        let (client, progress, command) = (&client, &progress, &command);
        async move {
            let id = item.id.clone();
            match accept(client, item, command, progress).await {
                Ok(receipt) => Outcome::Accepted(receipt),
                Err(error) => Outcome::Refused { id, error },
            }
        }
    };
    let follow = |outcome: Outcome| {
        let (client, progress, wait) = (&client, &progress, command.wait);
        async move {
            match outcome {
                Outcome::Accepted(receipt) if wait => match until_final(client, &receipt, progress).await {
                    Ok(document) => Outcome::Final(document),
                    Err(status) => Outcome::Refused {
                        id: receipt.document_id,
                        error: status.into(),
                    },
                },
                other => other,
            }
        }
    };
    let outcomes = futures::stream::iter(items).map(accept).buffer_unordered(IN_FLIGHT);
    let mut outcomes = std::pin::pin!(outcomes.map(follow).buffer_unordered(WATCHED));
    let (mut done, mut failures) = (0, 0);
    while let Some(outcome) = outcomes.next().await {
        done += 1;
        failures += usize::from(outcome.failed());
        progress.result(|| outcome.show(&command.tenant, command.json));
        if total > 1 {
            step.tick(format!("{done} of {total}, {failures} failed"));
        }
    }
    drop(step);
    if total > 1 && !command.json {
        let what = if command.wait {
            "reached their final state"
        } else {
            "accepted"
        };
        let seconds = started.elapsed().as_secs_f64();
        progress.line(format!(
            "{} of {total} documents {what} in {seconds:.1} s",
            total - failures
        ));
    }
    if failures > 0 {
        Err(Shown(format!("{failures} of {total} documents failed")).into())
    } else {
        Ok(())
    }
}

async fn accept(
    client: &IngestServiceClient<Channel>,
    item: Item,
    command: &Submit,
    progress: &Progress,
) -> Result<Receipt> {
    let body = item.read().await?;
    let request = SubmitDocumentRequest {
        tenant: command.tenant.clone(),
        document_id: item.id.clone(),
        body,
        media_type: command
            .media_type
            .clone()
            .unwrap_or_else(|| files::media_type(&item.id).to_owned()),
        request_id: Uuid::new_v4().to_string(),
        lane: command.lane.clone().map(String::from).unwrap_or_default(),
    };
    let mut retry = Retry::new();
    loop {
        // The same request_id at each attempt: one effect, however many of them arrive.
        match client
            .clone()
            .submit_document(within(request.clone(), CALL_LIMIT))
            .await
        {
            Ok(answer) => return answer.into_inner().receipt.context("ingest answered without a receipt"),
            Err(status) => retry.after(status, progress).await?,
        }
    }
}

impl Outcome {
    fn failed(&self) -> bool {
        match self {
            Self::Accepted(_) => false,
            Self::Final(document) => document.state() == DocumentState::Failed,
            Self::Refused { .. } => true,
        }
    }

    fn show(&self, tenant: &str, json: bool) {
        match self {
            Self::Accepted(receipt) if json => output::json(&receipt_json(receipt)),
            Self::Accepted(r) => output::line(format_args!("{}  revision {}  accepted", r.document_id, r.revision)),
            Self::Final(document) if json => output::json(&document_json(document)),
            Self::Final(d) => {
                let state = state_name(d.state());
                let why = if d.reason.is_empty() {
                    String::new()
                } else {
                    format!("  {}: {}", d.reason, d.message)
                };
                let (id, revision, chunks) = (&d.document_id, d.revision, d.chunk_count);
                output::line(format_args!("{id}  revision {revision}  {state}  {chunks} chunks{why}"));
            }
            Self::Refused { id, error } => {
                let status = error.chain().find_map(|cause| cause.downcast_ref::<tonic::Status>());
                let text = status.map_or_else(|| format!("{error:#}"), |status| explain(error, status));
                if json {
                    let reason = status.and_then(millrace_rpc::error::reason);
                    output::json(&json!({
                        "tenant": tenant, "document": id, "state": "REFUSED", "reason": reason, "message": text,
                    }));
                } else {
                    eprintln!("{id}: {text}");
                }
            }
        }
    }
}
