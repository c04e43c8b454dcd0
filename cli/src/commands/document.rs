//! `millrace delete`, `status`, `watch`: one document's life.

use anyhow::{Context, Result};
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::ingest::v1::{
    DeleteDocumentRequest, Document, DocumentState, GetDocumentRequest, Receipt, WatchDocumentRequest,
};
use serde_json::{Map, Value, json};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::client::{CALL_LIMIT, Target, within};
use crate::exit::Shown;
use crate::output::{self, Progress};
use crate::retry::Retry;

/// Delete documents
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace delete guides/intro.md
  millrace delete a.md b.md --tenant acme --wait      returns when no search finds them any more")]
pub struct Delete {
    /// Ids of the documents
    #[arg(required = true, value_name = "DOCUMENT")]
    documents: Vec<String>,
    /// Whose documents
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Wait until each is deleted
    #[arg(long)]
    wait: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Deletes, one after another.
pub async fn delete(command: Delete, target: &Target) -> Result<()> {
    let client = target.ingest()?;
    let progress = Progress::stderr();
    let mut failed = 0;
    for document_id in &command.documents {
        let mut retry = Retry::new();
        let request_id = Uuid::new_v4().to_string();
        let receipt = loop {
            let request = DeleteDocumentRequest {
                tenant: command.tenant.clone(),
                document_id: document_id.clone(),
                request_id: request_id.clone(),
            };
            match client.clone().delete_document(within(request, CALL_LIMIT)).await {
                Ok(answer) => break answer.into_inner().receipt.unwrap_or_default(),
                Err(status) => retry
                    .after(status, &progress)
                    .await
                    .with_context(|| document_id.clone())?,
            }
        };
        if command.wait {
            let document = until_final(&client, &receipt, &progress)
                .await
                .with_context(|| document_id.clone())?;
            failed += usize::from(document.state() == DocumentState::Failed);
            show(&document, command.json);
        } else if command.json {
            output::json(&receipt_json(&receipt));
        } else {
            output::line(format_args!(
                "{}  revision {}  accepted",
                receipt.document_id, receipt.revision
            ));
        }
    }
    if failed > 0 {
        Err(Shown(format!("{failed} of {} deletions FAILED", command.documents.len())).into())
    } else {
        Ok(())
    }
}

/// Show the state of a document
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace status guides/intro.md
  millrace status guides/intro.md --revision 281474976710663 --json

Exit code 1 when nothing is known of the document.")]
pub struct StatusOf {
    /// Id of the document
    #[arg(value_name = "DOCUMENT")]
    document: String,
    /// Whose document
    #[arg(long, default_value = "default")]
    tenant: String,
    /// One revision [default: the latest]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    revision: i64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub async fn status(command: StatusOf, target: &Target) -> Result<()> {
    let request = GetDocumentRequest {
        tenant: command.tenant,
        document_id: command.document.clone(),
        revision: command.revision,
    };
    let answer = target
        .ingest()?
        .get_document(within(request, CALL_LIMIT))
        .await
        .context(command.document)?;
    show(&answer.into_inner().document.unwrap_or_default(), command.json);
    Ok(())
}

/// Follow a document: its state now, and at each change
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace watch guides/intro.md                                 until Ctrl-C
  millrace watch guides/intro.md --revision 281474976710663      until that revision's final state")]
pub struct Watch {
    /// Id of the document
    #[arg(value_name = "DOCUMENT")]
    document: String,
    /// Whose document
    #[arg(long, default_value = "default")]
    tenant: String,
    /// One revision: ends when it reaches a final state [default: all, without end]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    revision: i64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Follows it, through outages of ingest.
pub async fn watch(command: Watch, target: &Target) -> Result<()> {
    let request = WatchDocumentRequest {
        tenant: command.tenant,
        document_id: command.document.clone(),
        revision: command.revision,
    };
    let mut shown = None;
    let on_change = |document: Document| {
        // A watch that is taken up again begins with what was shown last.
        if shown.as_ref() != Some(&document) {
            show(&document, command.json);
        }
        let done = command.revision != 0 && is_final(document.state());
        shown = Some(document);
        done
    };
    follow(&target.ingest()?, &request, on_change, &Progress::stderr())
        .await
        .context(command.document)
}

/// Whether a state is the last one of its revision.
pub fn is_final(state: DocumentState) -> bool {
    match state {
        DocumentState::Indexed
        | DocumentState::Deleted
        | DocumentState::Failed
        | DocumentState::Superseded
        | DocumentState::DuplicateOf => true,
        DocumentState::Unspecified | DocumentState::Accepted | DocumentState::Parsed => false,
    }
}

/// Waits for the final state of an accepted revision, through outages of ingest.
pub async fn until_final(
    client: &IngestServiceClient<Channel>,
    receipt: &Receipt,
    progress: &Progress,
) -> Result<Document, tonic::Status> {
    let request = WatchDocumentRequest {
        tenant: receipt.tenant.clone(),
        document_id: receipt.document_id.clone(),
        revision: receipt.revision,
    };
    let mut last = Document::default();
    let on_change = |document: Document| {
        last = document;
        is_final(last.state())
    };
    follow(client, &request, on_change, progress).await?;
    Ok(last)
}

/// Watches until `done` says so of a change; a watch that is cut off is taken up again.
async fn follow(
    client: &IngestServiceClient<Channel>,
    request: &WatchDocumentRequest,
    mut done: impl FnMut(Document) -> bool,
    progress: &Progress,
) -> Result<(), tonic::Status> {
    let mut retry = Retry::new();
    loop {
        let end = match client.clone().watch_document(request.clone()).await {
            Err(status) => status,
            Ok(answer) => {
                let mut stream = answer.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(change)) => {
                            retry = Retry::new();
                            if done(change.document.unwrap_or_default()) {
                                return Ok(());
                            }
                        }
                        Ok(None) => break tonic::Status::unavailable("the watch ended early"),
                        Err(status) => break status,
                    }
                }
            }
        };
        retry.after(end, progress).await?;
    }
}

/// The state's name without its prefix.
pub fn state_name(state: DocumentState) -> &'static str {
    state.as_str_name().trim_start_matches("DOCUMENT_STATE_")
}

fn show(document: &Document, json: bool) {
    if json {
        output::json(&document_json(document));
        return;
    }
    let state = state_name(document.state());
    let mut line = format!("{}  revision {}  {state}", document.document_id, document.revision);
    if !document.lane.is_empty() {
        line.push_str(&format!("  lane {}", document.lane));
    }
    if document.chunk_count > 0 {
        line.push_str(&format!("  {} chunks", document.chunk_count));
    }
    if document.live_revision != 0 && document.live_revision != document.revision {
        line.push_str(&format!("  (a search sees revision {})", document.live_revision));
    }
    if document.duplicate_of_revision != 0 {
        line.push_str(&format!("  of revision {}", document.duplicate_of_revision));
    }
    if !document.reason.is_empty() {
        line.push_str(&format!("  {}: {}", document.reason, document.message));
    }
    output::line(line);
}

/// A receipt in JSON; revisions are strings, as everywhere.
pub fn receipt_json(receipt: &Receipt) -> Value {
    json!({
        "tenant": receipt.tenant, "document": receipt.document_id, "revision": receipt.revision.to_string(),
        "state": "ACCEPTED", "trace_id": receipt.trace_id,
    })
}

/// A document's state in JSON. What does not apply is absent.
pub fn document_json(document: &Document) -> Value {
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    set("tenant", document.tenant.clone().into());
    set("document", document.document_id.clone().into());
    set("revision", document.revision.to_string().into());
    set("state", state_name(document.state()).into());
    set("chunks", document.chunk_count.into());
    set("latest_revision", document.latest_revision.to_string().into());
    set("live_revision", document.live_revision.to_string().into());
    if !document.lane.is_empty() {
        set("lane", document.lane.clone().into());
    }
    set("accepted_at_ms", document.accepted_at_ms.into());
    set("updated_at_ms", document.updated_at_ms.into());
    if !document.reason.is_empty() {
        set("reason", document.reason.clone().into());
        set("message", document.message.clone().into());
    }
    if document.duplicate_of_revision != 0 {
        set(
            "duplicate_of_revision",
            document.duplicate_of_revision.to_string().into(),
        );
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_strings_and_states_have_no_prefix() {
        let document = Document {
            document_id: "a.md".to_owned(),
            revision: 281_474_976_710_663,
            state: DocumentState::Superseded.into(),
            ..Document::default()
        };
        let json = document_json(&document);
        assert_eq!(json["revision"], "281474976710663");
        assert_eq!(json["state"], "SUPERSEDED");
        assert_eq!(json.get("reason"), None);
    }
}
