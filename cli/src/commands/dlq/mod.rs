//! `millrace dlq`: what was given up.
//!
//! [`filter`] has the flags that select letters, [`time`] how times are read and written; `list`, `show` and `job` (redrive
//! and discard) are the commands.

mod filter;
mod job;
mod list;
mod show;
mod time;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Target;

/// Look at dead letters, send them to their stage again, or let them go
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace dlq list --histogram                                   how many, by stage and reason
  millrace dlq list --reason CHUNK_TOO_LONG --since 2h
  millrace dlq show documents.parsed/3/1207
  millrace dlq redrive --stage embed --dry-run
  millrace dlq redrive --stage embed --rate 50
  millrace dlq discard --tenant acme --until 2026-01-31")]
pub struct Dlq {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(list::List),
    Show(show::Show),
    Redrive(job::Redrive),
    Discard(job::Discard),
}

/// Does it.
pub async fn run(command: Dlq, target: &Target) -> Result<()> {
    match command.action {
        Action::List(list) => list::run(list, target).await,
        Action::Show(show) => show::run(show, target).await,
        Action::Redrive(redrive) => job::redrive(redrive, target).await,
        Action::Discard(discard) => job::discard(discard, target).await,
    }
}
