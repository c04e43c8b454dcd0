//! `millrace dlq redrive` and `millrace dlq discard`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use millrace_api::ingest::v1::dead_letter_service_client::DeadLetterServiceClient;
use millrace_api::ingest::v1::{
    DeadLetterState, DiscardDeadLettersRequest, DiscardDeadLettersResponse, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse, SkipReason, SkippedLetters,
};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::filter::Filter;
use crate::client::Target;
use crate::output::{self, Progress};
use crate::retry::Retry;

/// Send open dead letters to the stage that gave them up, as the revisions that they are
///
/// Cut off at any point, by whatever, it goes on where it was when it is run again. A service that restarts meanwhile is
/// waited for; what was sent just before it went may then not be counted (`resumed` in the JSON is above 0).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace dlq redrive documents.parsed/3/1207
  millrace dlq redrive --stage embed --reason MODEL_FAILED --dry-run      how many, and which would be passed over
  millrace dlq redrive --tenant acme --since 2h --rate 50
  millrace dlq redrive --yes                                              all of them")]
pub struct Redrive {
    /// Letters a second at most [default: no bound]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    rate: Option<i32>,
    /// Pass over those that were redriven this often
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..))]
    max_redrives: i32,
    #[command(flatten)]
    how: How,
    // Last, as its filter begins a section of the help.
    #[command(flatten)]
    which: Which,
}

/// Mark open dead letters as discarded; deletes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace dlq discard documents.parsed/3/1207
  millrace dlq discard --reason UNREADABLE_RECORD --until 7d
  millrace dlq discard --yes                                              all of them")]
pub struct Discard {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Keys of letters, as `dlq list` tells them [default: all that the flags select]
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Count what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Really all open letters: needed where neither a key nor a flag selects some
    #[arg(long)]
    yes: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What both services tell.
struct Told {
    matched: i64,
    done: i64,
    skipped: Vec<SkippedLetters>,
    finished: bool,
}

impl From<RedriveDeadLettersResponse> for Told {
    fn from(told: RedriveDeadLettersResponse) -> Self {
        Self {
            matched: told.matched,
            done: told.redriven,
            skipped: told.skipped,
            finished: told.done,
        }
    }
}

impl From<DiscardDeadLettersResponse> for Told {
    fn from(told: DiscardDeadLettersResponse) -> Self {
        Self {
            matched: told.matched,
            done: told.discarded,
            skipped: told.skipped,
            finished: told.done,
        }
    }
}

/// Redrives.
pub async fn redrive(command: Redrive, target: &Target) -> Result<()> {
    let Redrive { which, how, .. } = &command;
    sure(which, how)?;
    let request = RedriveDeadLettersRequest {
        filter: Some(which.filter.request(&[DeadLetterState::Open], &which.keys)),
        dry_run: how.dry_run,
        max_per_second: command.rate.unwrap_or_default(),
        max_redrives: command.max_redrives,
    };
    let call = async |mut client: DeadLetterServiceClient<Channel>| {
        let answer = client.redrive_dead_letters(request.clone()).await?;
        Ok(answer.into_inner())
    };
    work("redriven", how, target, call).await
}

/// Discards.
pub async fn discard(command: Discard, target: &Target) -> Result<()> {
    let Discard { which, how } = &command;
    sure(which, how)?;
    let request = DiscardDeadLettersRequest {
        filter: Some(which.filter.request(&[DeadLetterState::Open], &which.keys)),
        dry_run: how.dry_run,
    };
    let call = async |mut client: DeadLetterServiceClient<Channel>| {
        let answer = client.discard_dead_letters(request.clone()).await?;
        Ok(answer.into_inner())
    };
    work("discarded", how, target, call).await
}

fn sure(which: &Which, how: &How) -> Result<()> {
    if which.keys.is_empty() && which.filter.is_empty() && !how.dry_run && !how.yes {
        bail!("this means every open dead letter: give a key or a filter, look first with --dry-run, or say --yes");
    }
    Ok(())
}

/// Works until all is done, through restarts of the service.
async fn work<T: Into<Told>>(
    verb: &str,
    how: &How,
    target: &Target,
    call: impl AsyncFn(DeadLetterServiceClient<Channel>) -> Result<Streaming<T>, Status>,
) -> Result<()> {
    let client = target.dead_letters()?;
    let progress = Progress::stderr();
    let step = progress.step("dead letters");
    let mut retry = Retry::new();
    let (mut before, mut resumed) = (0, 0);
    loop {
        let mut done = 0;
        let ended = match call(client.clone()).await {
            Err(status) => status,
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(told)) => {
                        let told: Told = told.into();
                        done = told.done;
                        if told.finished {
                            step.done(format!("{} {verb}", before + done));
                            show(verb, how, &told, before, resumed);
                            return Ok(());
                        }
                        if told.matched > 0 {
                            retry = Retry::new();
                            let skipped: i64 = told.skipped.iter().map(|s| s.letters).sum();
                            step.tick(format!("{done} of {} {verb}, {skipped} passed over", told.matched));
                        }
                    }
                    Ok(None) => break Status::unavailable("the answer ended early"),
                    Err(status) => break status,
                }
            },
        };
        before += done;
        resumed += 1;
        let so_far = || format!("{before} {verb} so far; run the same command again to go on");
        retry.after(ended, &progress).await.with_context(so_far)?;
    }
}

fn show(verb: &str, how: &How, told: &Told, before: i64, resumed: u32) {
    let skipped: BTreeMap<&str, i64> = told
        .skipped
        .iter()
        .map(|s| (skip_name(s.reason()), s.letters))
        .collect();
    let done = before + told.done;
    if how.json {
        output::json(&json!({
            verb: done, "matched": before + told.matched, "skipped": skipped, "dry_run": how.dry_run, "resumed": resumed,
        }));
        return;
    }
    // What was written just before a connection was cut was not told any more.
    let at_least = if resumed > 0 { "at least " } else { "" };
    let would_be = if how.dry_run { "would be " } else { "" };
    output::line(format_args!("{at_least}{done} {would_be}{verb}"));
    for (reason, letters) in skipped {
        output::line(format_args!("{letters} passed over: {reason}"));
    }
}

/// The reason's name without its prefix.
fn skip_name(reason: SkipReason) -> &'static str {
    reason.as_str_name().trim_start_matches("SKIP_REASON_")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        redrive: Redrive,
    }

    #[test]
    fn all_letters_are_meant_only_where_it_is_said() {
        let refused = |flags: &[&str]| {
            let line = Line::try_parse_from([&["redrive"], flags].concat()).unwrap().redrive;
            sure(&line.which, &line.how).is_err()
        };
        assert!(refused(&[]));
        assert!(refused(&["--rate", "5"]));
        for flags in [
            &["--yes"][..],
            &["--dry-run"],
            &["t/1/2"],
            &["--stage", "embed"],
            &["--since", "2h"],
        ] {
            assert!(!refused(flags), "{flags:?}");
        }
    }
}
