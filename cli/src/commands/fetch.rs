//! `millrace fetch`.

use anyhow::Result;

use crate::output::Progress;
use crate::stack::fetch::Cache;

/// Fetch what the local stack needs, without starting it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace fetch                                   into ~/.cache/millrace
  MILLRACE_CACHE=/big/disk/millrace millrace fetch")]
pub struct Fetch {}

/// Fetches.
pub async fn run(_: Fetch) -> Result<()> {
    let cache = Cache::of_user()?;
    cache.fill(&Progress::stderr()).await?;
    crate::output::line(format_args!("everything is in {}", cache.root().display()));
    Ok(())
}
