//! `millrace dlq list`.

use anyhow::Result;
use clap::ValueEnum;
use millrace_api::ingest::v1::{DeadLetter, DeadLetterState, ListDeadLettersRequest, SummarizeDeadLettersRequest};
use serde_json::{Value, json};

use super::filter::Filter;
use super::time;
use crate::client::{CALL_LIMIT, Target, within};
use crate::output;

const PAGE: usize = 1000;

/// List dead letters, the last given up first, or count them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace dlq list
  millrace dlq list --histogram --state all
  millrace dlq list --stage parse --reason BODY_NOT_UTF8 --tenant acme --since 7d --limit 0 --json")]
pub struct List {
    /// In this state
    #[arg(long, value_enum, default_value_t = State::Open)]
    state: State,
    /// Count by stage and reason instead
    #[arg(long)]
    histogram: bool,
    /// How many at most, 0 for all
    #[arg(long, default_value_t = 100, value_name = "N", conflicts_with = "histogram")]
    limit: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Open,
    Redriven,
    Discarded,
    All,
}

impl State {
    fn states(self) -> &'static [DeadLetterState] {
        match self {
            Self::Open => &[DeadLetterState::Open],
            Self::Redriven => &[DeadLetterState::Redriven],
            Self::Discarded => &[DeadLetterState::Discarded],
            Self::All => &[],
        }
    }
}

/// Lists or counts.
pub async fn run(command: List, target: &Target) -> Result<()> {
    if command.histogram {
        return histogram(command, target).await;
    }
    let mut client = target.dead_letters()?;
    let limit = match command.limit {
        0 => usize::MAX,
        limit => limit,
    };
    let (mut shown, mut page_token) = (0, String::new());
    loop {
        let request = ListDeadLettersRequest {
            filter: Some(command.filter.request(command.state.states(), &[])),
            page_size: i32::try_from(PAGE.min(limit - shown))?,
            page_token,
        };
        let page = client
            .list_dead_letters(within(request, CALL_LIMIT))
            .await?
            .into_inner();
        if shown == 0 && !command.json {
            match page.letters.is_empty() {
                true => output::line("no dead letters"),
                false => output::line(row(["FAILED AT", "STATE", "STAGE", "REASON", "DOCUMENT", "KEY"])),
            }
        }
        shown += page.letters.len();
        for letter in &page.letters {
            match command.json {
                true => output::json(&letter_json(letter)),
                false => output::line(letter_row(letter)),
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
        if shown >= limit {
            eprintln!("there are more than {limit}: --limit 0 lists all, --histogram counts them");
            return Ok(());
        }
    }
}

async fn histogram(command: List, target: &Target) -> Result<()> {
    let request = SummarizeDeadLettersRequest {
        filter: Some(command.filter.request(command.state.states(), &[])),
    };
    let answer = target
        .dead_letters()?
        .summarize_dead_letters(within(request, CALL_LIMIT))
        .await?;
    let counts = answer.into_inner().counts;
    if counts.is_empty() && !command.json {
        output::line("no dead letters");
    }
    let most = counts.iter().map(|count| count.letters).max().unwrap_or(1).max(1);
    for count in counts {
        let state = state_name(count.state());
        if command.json {
            output::json(&json!({
                "stage": count.stage, "reason": count.reason, "state": state, "letters": count.letters,
                "first_failed_at_ms": count.first_failed_at_ms, "last_failed_at_ms": count.last_failed_at_ms,
            }));
        } else {
            let bar = usize::try_from((count.letters * 30 + most - 1) / most).unwrap_or(0);
            output::line(format_args!(
                "{:>9}  {:<6} {:<22} {:<9}  {} to {}  {}",
                count.letters,
                count.stage,
                count.reason,
                state,
                time::show(count.first_failed_at_ms),
                time::show(count.last_failed_at_ms),
                "█".repeat(bar),
            ));
        }
    }
    Ok(())
}

/// The state's name without its prefix.
pub fn state_name(state: DeadLetterState) -> &'static str {
    match state {
        DeadLetterState::Unspecified => "UNKNOWN",
        state => state.as_str_name().trim_start_matches("DEAD_LETTER_STATE_"),
    }
}

fn row([at, state, stage, reason, document, key]: [&str; 6]) -> String {
    format!("{at:<20}  {state:<9}  {stage:<5}  {reason:<22}  {document:<32}  {key}")
}

fn letter_row(letter: &DeadLetter) -> String {
    let document = match letter.document_id.as_str() {
        "" => "-".to_owned(),
        id => format!("{}/{id}", letter.tenant),
    };
    row([
        &time::show(letter.failed_at_ms),
        state_name(letter.state()),
        &letter.stage,
        &letter.reason,
        &document,
        &letter.key,
    ])
}

/// A letter in JSON; revisions are strings, as everywhere. What is not known is absent.
pub fn letter_json(letter: &DeadLetter) -> Value {
    let mut object = json!({
        "key": letter.key, "state": state_name(letter.state()), "redrives": letter.redrives, "stage": letter.stage,
        "reason": letter.reason, "message": letter.message, "attempts": letter.attempts,
        "failed_at_ms": letter.failed_at_ms, "updated_at_ms": letter.updated_at_ms,
    });
    if !letter.document_id.is_empty() {
        object["tenant"] = letter.tenant.clone().into();
        object["document"] = letter.document_id.clone().into();
    }
    if letter.revision != 0 {
        object["revision"] = letter.revision.to_string().into();
    }
    if letter.accepted_at_ms != 0 {
        object["accepted_at_ms"] = letter.accepted_at_ms.into();
    }
    if !letter.trace_id.is_empty() {
        object["trace_id"] = letter.trace_id.clone().into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_letter_is_absent() {
        let mut letter = DeadLetter {
            key: "documents.parsed/3/7".into(),
            state: DeadLetterState::Redriven.into(),
            ..DeadLetter::default()
        };
        let told = letter_json(&letter);
        assert_eq!(told["state"], "REDRIVEN");
        assert_eq!((told.get("document"), told.get("revision")), (None, None));
        (letter.document_id, letter.revision) = ("a.md".into(), 281_474_976_710_663);
        assert_eq!(letter_json(&letter)["revision"], "281474976710663");
    }
}
