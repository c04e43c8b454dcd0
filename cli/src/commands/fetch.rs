//! `millrace fetch`.

use anyhow::Result;

use crate::output::Progress;
use crate::stack::fetch::Cache;

/// Fetch what the local stack needs, without starting it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace fetch                                   into ~/.cache/millrace
  millrace fetch --all-models                      bge-small-en-v1.5 and e5-small-v2 too
  MILLRACE_CACHE=/big/disk/millrace millrace fetch")]
pub struct Fetch {
    /// The other models that Millrace knows how to run, too
    #[arg(long)]
    all_models: bool,
}

/// Fetches.
pub async fn run(fetch: Fetch) -> Result<()> {
    let (cache, progress) = (Cache::of_user()?, Progress::stderr());
    match fetch.all_models {
        true => cache.fill_with_all_models(&progress).await?,
        false => cache.fill(&progress).await?,
    }
    crate::output::line(format_args!("everything is in {}", cache.root().display()));
    Ok(())
}
