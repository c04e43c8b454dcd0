//! `millrace chaos`.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_failpoints::mutants;
use millrace_oracle::crash::{self, Played};
use millrace_oracle::{Options, Size, mutation};
use serde::Serialize;

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
  millrace chaos --minutes 15 --json            one object on stdout: faults, requests, memory, rare paths, verdict
  millrace chaos --minutes 15 --strict          a run that came by nothing rare fails
  cargo run --release -p millrace-cli --features failpoints -- chaos --mutant all --minutes 1 --seed 1 --documents 12
                                                whoever finds nothing must be seen finding something

Exit code 0 when nothing was found (of mutants: when each was), 1 otherwise or when a run could not be finished, 2 for
arguments that cannot be used.")]
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
    /// Fail too when the run missed a rare path: of what it did not come by its verdict says nothing
    #[arg(long)]
    strict: bool,
    /// Break a rule on purpose, with up to three seeds until it is found: a mutant's name, or `all`. Needs a build with
    /// `--features failpoints`
    #[arg(long, value_name = "NAME", value_parser = mutant, conflicts_with_all = ["crash_points", "strict"])]
    mutant: Vec<String>,
    /// Have each service die once in every place where an effect has happened and the next has not, in place of a storm.
    /// Needs a build with `--features failpoints`
    #[arg(long, conflicts_with_all = ["strict", "minutes", "seed", "documents", "replicas", "brokers"])]
    crash_points: bool,
    /// Print one JSON object, or an array of them
    #[arg(long)]
    json: bool,
}

/// Every mutant.
const ALL: &str = "all";
/// For everything to be finished when the faults have ended.
const CALM: Duration = Duration::from_secs(180);
/// What a mutant has broken is not waited for as long.
const MUTANT_CALM: Duration = Duration::from_secs(40);

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
    let tell = |text: String| progress.line(text);
    let millrace = std::env::current_exe().context("cannot find this program's own file")?;
    if chaos.crash_points {
        let played = Box::pin(crash::play(&millrace, &interrupt, &tell)).await?;
        let well = played.iter().all(Played::is_well);
        show(chaos.json, &played, |played| output::line(played));
        return judged(well, "a crash point was not hit, or something was found after it");
    }
    let seed = chaos.seed.unwrap_or_else(rand::random);
    let options = Options {
        storm: Duration::from_secs_f64(chaos.minutes * 60.0),
        seed,
        documents: usize::from(chaos.documents),
        canary_every: Duration::from_secs(u64::from(chaos.canary_seconds)),
        size: Size {
            brokers: chaos.brokers,
            replicas: chaos.replicas,
        },
        calm: if chaos.mutant.is_empty() { CALM } else { MUTANT_CALM },
        mutant: None,
        slow_search: !chaos.mutant.is_empty(),
    };
    progress.line(format!("seed {seed}"));
    if !chaos.mutant.is_empty() {
        let all = chaos.mutant.iter().any(|name| name == ALL);
        let wanted = mutants::ALL
            .iter()
            .filter(|mutant| all || chaos.mutant.iter().any(|name| name == mutant.name));
        let wanted: Vec<_> = wanted.copied().collect();
        let hunted = Box::pin(mutation::hunt(&millrace, &wanted, &options, &interrupt, &tell)).await?;
        let found = hunted.iter().all(|hunted| hunted.found_with.is_some());
        show(chaos.json, &hunted, |hunted| output::line(hunted));
        return judged(found, "a broken rule was not found");
    }
    let report = Box::pin(millrace_oracle::run(&millrace, &options, &interrupt, &tell)).await?;
    if chaos.json {
        output::json(&report);
    } else {
        output::line(&report);
    }
    judged(report.clean, "a promise was broken: see the verdict")?;
    let missed = report.missed().join(", ");
    let enough = !chaos.strict || missed.is_empty();
    judged(
        enough,
        &format!("the run missed {missed}: run it for longer, or with another seed"),
    )
}

fn show<T: Serialize>(as_json: bool, rows: &[T], line: impl Fn(&T)) {
    if as_json {
        output::json(&rows);
    } else {
        rows.iter().for_each(line);
    }
}

fn judged(well: bool, why_not: &str) -> Result<()> {
    if well {
        return Ok(());
    }
    Err(Shown(why_not.to_owned()).into())
}

/// The name of a mutant, or of all of them.
fn mutant(name: &str) -> Result<String, String> {
    let names: Vec<_> = mutants::ALL.iter().map(|mutant| mutant.name).collect();
    if name == ALL || names.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("none of {ALL}, {}", names.join(", ")))
}
