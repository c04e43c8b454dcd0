//! `millrace up`.

use std::path::PathBuf;

use anyhow::Result;
use millrace_embedder::batch::MOST_WEIGHT;
use millrace_events::Lane;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::client::Target;
use crate::commands::topics;
use crate::output::{self, Progress};
use crate::stack::size::{Asked, MOST_REPLICAS};
use crate::stack::{Interrupted, Options, Stack};

/// Start the local stack: Kafka, a schema registry, the three services; stop it with Ctrl-C
///
/// Everything that the stack keeps lies under --dir: data, logs/, config/, pids/ and stack.json. A second start
/// carries on where the first one stopped. What must be fetched is fetched once, into ~/.cache/millrace.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace up                          then, in another terminal: millrace submit README.md --wait
  millrace up --dir /tmp/second        another stack beside the first
  millrace up --brokers 3 --dir /tmp/three        three replicas of each record, of which two must have it
  millrace up --replicas 2 --dir /tmp/two         two instances each of ingest and embedder: ingest-1, embedder-1
  millrace up --lane bulk --lane urgent=8         then: millrace submit README.md --lane urgent
  millrace up --program embedder=/opt/millrace-next/millrace     one service from another build, to try an upgrade
  millrace up --json                   one line on stdout when everything is ready:
    {\"kafka\":\"127.0.0.1:17001\",\"registry\":\"http://127.0.0.1:17003/apis/ccompat/v7\",\"ingest\":\"http://127.0.0.1:17004\",…}
  kill -9 $(cat .millrace/pids/embedder.pid)      it is started again; with --no-supervise it is not")]
pub struct Up {
    /// Print the addresses as one line of JSON on stdout when everything is ready
    #[arg(long)]
    json: bool,
    /// Leave a part that dies dead
    #[arg(long)]
    no_supervise: bool,
    /// Brokers: 1, or 3 that hold each record three times [default: as at the first start, else 1]
    #[arg(long, value_name = "N", value_parser = brokers)]
    brokers: Option<u16>,
    /// Instances of ingest and of the embedder, up to 4 [default: as at the first start, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_REPLICAS)))]
    replicas: Option<u16>,
    /// A lane of documents, which the embedder serves by this weight (where none is said, that of the start before, or 1),
    /// beside those of earlier starts; may be given several times
    #[arg(long, value_name = "NAME[=WEIGHT]", value_parser = lane, env = "MILLRACE_UP_LANES", value_delimiter = ',')]
    lane: Vec<(Lane, Option<u32>)>,
    /// Run a service from another build of millrace; the file is looked up at each of its starts, so a link can be turned
    #[arg(long, value_name = "SERVICE=FILE", value_parser = program, env = "MILLRACE_UP_PROGRAMS", value_delimiter = ',')]
    program: Vec<(String, PathBuf)>,
    /// Only broker and registry, with topics and schemas
    #[arg(long, hide = true)]
    no_services: bool,
}

/// Runs until a signal, or until a part is given up.
pub async fn run(up: Up, target: &Target) -> Result<()> {
    let interrupt = on_signal()?;
    let progress = Progress::stderr();
    let options = Options {
        dir: target.dir.clone(),
        asked: Asked {
            brokers: up.brokers,
            replicas: up.replicas,
        },
        lanes: up.lane.into_iter().collect(),
        remembers: true,
        supervise: !up.no_supervise,
        services: !up.no_services,
        programs: up.program.into_iter().collect(),
        progress: progress.clone(),
    };
    let mut stack = match Stack::start(options, &interrupt).await {
        Ok(stack) => stack,
        Err(e) if e.is::<Interrupted>() => return Ok(()),
        Err(e) => return Err(e),
    };
    if up.json {
        output::json(&stack.addresses);
    } else {
        let addresses = &stack.addresses;
        let all = ["kafka", "registry", "ingest", "embedder", "indexer"].into_iter();
        for name in all.chain(addresses.others.keys().map(String::as_str)) {
            let address = addresses.of(name).unwrap_or_default();
            output::line(format_args!("{name:<10} {address}"));
        }
    }
    progress.line("ready; Ctrl-C stops everything");
    let failure = tokio::select! {
        () = interrupt.cancelled() => None,
        failure = stack.failure() => Some(failure),
    };
    stack.stop().await?;
    failure.map_or(Ok(()), Err)
}

fn lane(text: &str) -> Result<(Lane, Option<u32>), String> {
    let Some((name, weight)) = text.split_once('=') else {
        return Ok((topics::lane(text)?, None));
    };
    let weight = weight
        .parse::<u32>()
        .ok()
        .filter(|weight| (1..=MOST_WEIGHT).contains(weight));
    let weight = weight.ok_or_else(|| format!("a weight is 1 to {MOST_WEIGHT}"))?;
    Ok((topics::lane(name)?, Some(weight)))
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (service, file) = text
        .split_once('=')
        .ok_or("write SERVICE=FILE, for example embedder=./millrace-1.1")?;
    if !["ingest", "embedder", "indexer"].contains(&service) {
        return Err(format!("{service} is no service: ingest, embedder or indexer"));
    }
    let file = std::path::absolute(file).map_err(|error| error.to_string())?;
    match file.is_file() {
        true => Ok((service.to_owned(), file)),
        false => Err(format!("{} is no file", file.display())),
    }
}

/// How many brokers a cluster may have: two could not lose one.
pub fn brokers(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3".to_owned()),
    }
}

/// A token that the first SIGINT or SIGTERM cancels. Further ones change nothing: stopping is bounded.
pub fn on_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let asked = token.clone();
    // Ends with the process: it owns nothing and nobody waits for it.
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        asked.cancel();
    });
    Ok(token)
}
