//! `millrace dlq show`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use millrace_api::ingest::v1::{DeadLetter, DeadLetterOriginal, GetDeadLetterRequest, RecordHeader};
use serde_json::{Value, json};

use super::list::{letter_json, state_name};
use super::time;
use crate::client::{CALL_LIMIT, Target, within};
use crate::output;

/// Show one dead letter: its state, and the original that was given up
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace dlq show documents.parsed/3/1207
  millrace dlq show documents.parsed/3/1207 --value record.bin     the original's value, byte for byte

Exit code 1 when no letter has the key.")]
pub struct Show {
    /// The letter's key, as `dlq list` tells it: topic/partition/offset
    key: String,
    /// Write the original's value to this file; - is stdout, with nothing else on it
    #[arg(long, value_name = "FILE")]
    value: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub async fn run(command: Show, target: &Target) -> Result<()> {
    let request = GetDeadLetterRequest {
        key: command.key.clone(),
        with_original: command.value.is_some(),
    };
    let answer = target
        .dead_letters()?
        .get_dead_letter(within(request, CALL_LIMIT))
        .await
        .context(command.key)?;
    let answer = answer.into_inner();
    let letter = answer.letter.unwrap_or_default();
    if let Some(file) = &command.value {
        let Some(original) = &answer.original else {
            bail!(
                "{}: its original no longer stands in documents.dlq, or was too large for it",
                letter.key
            );
        };
        if file.as_os_str() == "-" {
            let mut out = std::io::stdout().lock();
            return out
                .write_all(&original.value)
                .and_then(|()| out.flush())
                .context("stdout");
        }
        std::fs::write(file, &original.value).with_context(|| file.display().to_string())?;
    }
    if command.json {
        let mut object = letter_json(&letter);
        if let Some(original) = &answer.original {
            object["original"] = original_json(original);
        }
        output::json(&object);
    } else {
        show(&letter, answer.original.as_ref());
    }
    Ok(())
}

fn original_json(original: &DeadLetterOriginal) -> Value {
    let headers = |headers: &[RecordHeader]| {
        let header = |header: &RecordHeader| json!({"name": header.name, "value": text(header)});
        headers.iter().map(header).collect::<Vec<_>>()
    };
    json!({
        "key_bytes": original.key_bytes, "value_bytes": original.value_bytes, "value_absent": original.value_absent,
        "headers": headers(&original.headers), "error_headers": headers(&original.error_headers),
        "partition": original.partition, "offset": original.offset.to_string(),
    })
}

/// What is not UTF-8 is shown with replacement characters.
fn text(header: &RecordHeader) -> Option<String> {
    let value = header.value.as_deref()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn show(letter: &DeadLetter, original: Option<&DeadLetterOriginal>) {
    let line = |name: &str, value: String| output::line(format_args!("{name:<12} {value}"));
    line("key", letter.key.clone());
    line(
        "state",
        format!("{}, redriven {} times", state_name(letter.state()), letter.redrives),
    );
    if letter.document_id.is_empty() {
        line("document", "not known".to_owned());
    } else {
        line(
            "document",
            format!("{}/{}  revision {}", letter.tenant, letter.document_id, letter.revision),
        );
    }
    line(
        "given up by",
        format!("{} after {} attempts", letter.stage, letter.attempts),
    );
    line("reason", format!("{}: {}", letter.reason, letter.message));
    line("failed", time::show(letter.failed_at_ms));
    line("updated", time::show(letter.updated_at_ms));
    if !letter.trace_id.is_empty() {
        line("trace", letter.trace_id.clone());
    }
    let Some(original) = original else {
        line(
            "original",
            "no longer stands in documents.dlq, or was too large for it".to_owned(),
        );
        return;
    };
    let value = match original.value_absent {
        true => "no value".to_owned(),
        false => format!("a value of {} bytes", original.value_bytes),
    };
    line("original", format!("a key of {} bytes, {value}", original.key_bytes));
    for (name, headers) in [("header", &original.headers), ("error", &original.error_headers)] {
        for header in headers {
            let value = text(header).unwrap_or_else(|| "(absent)".to_owned());
            line(name, format!("{}: {value}", header.name));
        }
    }
}
