//! `millrace chaos`.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_oracle::{Options, Size};

use super::up::{brokers, on_signal};
use crate::exit::Shown;
use crate::output::{self, Progress};
use crate::stack::size::MOST_REPLICAS;

/// Break the whole pipeline on purpose, and say whether it kept its promises
///
/// Starts a stack of its own in a temporary directory. Writers create, update and delete documents, searchers look for
/// them, and meanwhile services, broker and registry are killed, frozen, restarted and cut off. When the faults have
/// ended and nothing is left to do, the journal of what was asked for, the topics and what searches find are held against
/// each other: every count of the verdict must be 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace chaos                                some faults in two minutes
  millrace chaos --minutes 15 --seed 7          the same documents, acts and faults each time
  millrace chaos --minutes 15 --brokers 3       leaders are killed, and nothing waits for them
  millrace chaos --minutes 15 --replicas 2      two instances each of ingest and embedder
  millrace chaos --minutes 15 --json            one object on stdout: faults, requests, memory, verdict

Exit code 0 when nothing was found, 1 when something was or when the run could not be finished.")]
pub struct Chaos {
    /// How long faults go on
    #[arg(long, default_value_t = 2.0, value_parser = minutes)]
    minutes: f64,
    /// Of acts and faults [default: one by chance, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// How many documents there are
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    documents: u16,
    /// Instances of ingest and of the embedder; the embedded index has one indexer
    #[arg(long, default_value_t = 1, value_name = "R", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_REPLICAS)))]
    replicas: u16,
    /// Brokers: 1, or 3 that hold each record three times
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = brokers)]
    brokers: u16,
    /// Between two canaries of a partition, in seconds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    canary_seconds: u8,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let bounds = 0.1..=1440.0;
    bounds
        .contains(&minutes)
        .then_some(minutes)
        .ok_or_else(|| "from 0.1 to 1440".to_owned())
}

/// Breaks, and judges.
pub async fn run(chaos: Chaos) -> Result<()> {
    let interrupt = on_signal()?;
    let progress = Progress::stderr();
    let options = Options {
        storm: Duration::from_secs_f64(chaos.minutes * 60.0),
        seed: chaos.seed.unwrap_or_else(rand::random),
        documents: usize::from(chaos.documents),
        canary_every: Duration::from_secs(u64::from(chaos.canary_seconds)),
        size: Size {
            brokers: chaos.brokers,
            replicas: chaos.replicas,
        },
    };
    let millrace = std::env::current_exe().context("cannot find this program's own file")?;
    progress.line(format!("seed {}", options.seed));
    let tell = |text: String| progress.line(text);
    let report = millrace_oracle::run(&millrace, &options, &interrupt, &tell).await?;
    if chaos.json {
        output::json(&report);
    } else {
        output::line(&report);
    }
    if report.clean {
        return Ok(());
    }
    Err(Shown("a promise was broken: see the verdict".into()).into())
}
