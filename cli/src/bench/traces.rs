//! What traces cost, and whether they are whole: documents submitted as fast as they are taken, with traces and without in
//! turn, on one stack with a model that costs nothing, whose services are started anew for each turn.
//!
//! One broker for all: two of them differ by more than traces cost, for as long as they live, since each compiles its own code
//! while it runs. Each turn has an index of its own, which does not optimise: a large one costs more to write, and an
//! optimisation falls into one turn and not into its pair. With traces every one is kept (sampling 1.0), and `up` receives them
//! on the same cores. A receipt's trace is complete if it has every span of [`OF_A_DOCUMENT`]; since what `up` keeps is bounded,
//! the last [`LOOKED_AT`] are asked for.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_api::pipeline::v1::GetPipelineRequest;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_telemetry::otlp;
use millrace_testkit::traces::OF_A_DOCUMENT;
use millrace_testkit::{Client, ModelEndpoint, Stack, poll};
use rustix::process::Signal;

use super::report::{Row, Target, Unit};
use super::whole::{self, AT_ONCE, INDEXED_WITHIN};
use crate::output::Progress;
use crate::stack::state::{Layout, write_whole};
use crate::traces::{PART, store};

/// Before the first turn: the broker's code is compiled.
const FIRST: usize = 30_000;
/// Before the clock of each turn: connections, schemas and caches are made.
const WARM_UP: usize = 1000;
/// Receipts whose traces are looked at.
const LOOKED_AT: usize = 10_000;
/// Spans that were made are sent within a second.
const RECEIVED_WITHIN: Duration = Duration::from_secs(30);

/// One run.
struct Ran {
    documents_per_second: f64,
    /// Of the receipts, those whose trace is complete.
    complete: Option<usize>,
}

/// Runs in pairs; which goes first alternates.
pub async fn run(documents: usize, runs: usize, progress: &Progress) -> Result<Vec<Row>> {
    let (mut with, mut without, mut complete) = (Vec::new(), Vec::new(), Vec::new());
    let step = progress.step("traces");
    let model = ModelEndpoint::start(whole::DIMENSIONS, None).await?;
    whole::on_stack(model.environment(), true, async |stack| {
        step.say("the broker warms up");
        let client = Client::new(&stack.addresses, "bench")?;
        searchable(stack, &client, "first", FIRST).await?;
        let services = Services::of(stack)?;
        for run in 0..runs {
            for on in [run % 2 == 1, run % 2 == 0] {
                let what = if on { "with" } else { "without" };
                step.say(format!("{what} traces, run {} of {runs}", run + 1));
                let name = format!("{what} {run}");
                services.start_anew(stack, on, &name).await?;
                let ran = measured(stack, &client, &name, documents, on).await;
                let ran = ran.with_context(|| format!("{what} traces"))?;
                match ran.complete {
                    Some(count) => {
                        with.push(ran.documents_per_second);
                        complete.push(100.0 * count as f64 / documents.min(LOOKED_AT) as f64);
                    }
                    None => without.push(ran.documents_per_second),
                }
            }
        }
        Ok(())
    })
    .await?;
    step.done("measured");
    Ok(vec![
        Row {
            figure: "traces",
            name: format!("{documents} documents, submit to searchable, every trace kept"),
            unit: Unit::DocumentsPerSecond,
            millrace: with,
            yardstick: "the same without traces",
            beside: Ok(without),
            target: Target::AtLeastTimes(0.97),
        },
        Row {
            figure: "traces",
            name: "receipts whose trace is complete".to_owned(),
            unit: Unit::Percent,
            millrace: complete,
            yardstick: "",
            beside: Ok(Vec::new()),
            target: Target::AtLeast(99.9),
        },
    ])
}

/// The config files of a stack's services, with where to send traces.
struct Services {
    files: Vec<(&'static str, PathBuf, toml::Table)>,
}

impl Services {
    const ALL: [&str; 3] = ["ingest", "embedder", "indexer"];

    fn of(stack: &Stack) -> Result<Self> {
        let layout = Layout::new(stack.dir())?;
        let read = |service: &'static str| {
            let path = layout.config(service);
            let config = fs::read_to_string(&path)?.parse()?;
            Ok((service, path, config))
        };
        let files = Self::ALL.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Self { files })
    }

    /// Starts them anew, with an empty index: `up` does, when they have left.
    async fn start_anew(&self, stack: &Stack, traces: bool, turn: &str) -> Result<()> {
        for (service, path, config) in &self.files {
            let mut config = config.clone();
            if !traces {
                config.remove("traces");
            }
            if *service == "indexer" {
                let index = stack.dir().join("bench").join(turn);
                config.insert("data_dir".to_owned(), index.display().to_string().into());
                let never = toml::Table::from_iter([("optimize_after_points".to_owned(), i64::MAX.into())]);
                config.insert("embedded".to_owned(), never.into());
            }
            write_whole(path, &config.to_string())?;
        }
        try_join_all(Self::ALL.map(|service| stack.kill(service, Signal::TERM))).await?;
        try_join_all(Self::ALL.map(|service| stack.serving(service))).await?;
        Ok(())
    }
}

async fn measured(stack: &Stack, client: &Client, name: &str, documents: usize, on: bool) -> Result<Ran> {
    searchable(stack, client, &format!("{name}, before"), WARM_UP).await?;
    let began = Instant::now();
    let receipts = searchable(stack, client, name, documents).await?;
    let seconds = began.elapsed().as_secs_f64();
    // Not by a count alone.
    for receipt in receipts.iter().step_by(documents.div_ceil(50)) {
        client.reaches(receipt, &[DocumentState::Indexed]).await?;
    }
    let complete = match on {
        true => Some(complete(stack.dir(), &receipts[documents.saturating_sub(LOOKED_AT)..]).await?),
        false => None,
    };
    Ok(Ran {
        documents_per_second: documents as f64 / seconds,
        complete,
    })
}

/// Submits documents of one part each, [`AT_ONCE`], until all are indexed.
async fn searchable(stack: &Stack, client: &Client, name: &str, documents: usize) -> Result<Vec<Receipt>> {
    let before = indexed(stack).await?;
    let submits = (0..documents).map(|n| async move {
        let text = format!("Note {n} of many: so it goes, and on.");
        client.submit(&format!("{name}/{n}.md"), text).await
    });
    let receipts = stream::iter(submits).buffer_unordered(AT_ONCE).try_collect().await?;
    let all = i64::try_from(documents)?;
    poll::until("all documents to be indexed", INDEXED_WITHIN, async || {
        let done = indexed(stack).await? - before;
        Ok(if done >= all { Ok(()) } else { Err(done) })
    })
    .await?;
    Ok(receipts)
}

/// Records that the indexer has finished.
async fn indexed(stack: &Stack) -> Result<i64> {
    let mut client = PipelineServiceClient::new(millrace_rpc::client::channel(&stack.addresses.indexer)?);
    let answer = client.get_pipeline(GetPipelineRequest {}).await?.into_inner();
    let failed: i64 = answer.stages.iter().map(|stage| stage.failed).sum();
    ensure!(failed == 0, "{failed} records were given up");
    Ok(answer.stages.iter().map(|stage| stage.processed).sum())
}

/// How many of the receipts have a complete trace, once no more spans come.
async fn complete(dir: &Path, receipts: &[Receipt]) -> Result<usize> {
    let folder = dir.join(PART);
    let mut wanted: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (service, name, ..) in OF_A_DOCUMENT {
        *wanted.entry((service, name)).or_default() += 1;
    }
    let count = async || {
        let mut seen: HashMap<&str, BTreeMap<(String, String), usize>> = receipts
            .iter()
            .map(|receipt| (receipt.trace_id.as_str(), BTreeMap::new()))
            .collect();
        store::read(&folder, |request| {
            for (service, span) in otlp::spans(request) {
                if let Some(spans) = seen.get_mut(otlp::hex(&span.trace_id).as_str()) {
                    *spans.entry((service, span.name)).or_default() += 1;
                }
            }
        })?;
        let whole = |spans: &BTreeMap<(String, String), usize>| {
            wanted
                .iter()
                .all(|((service, name), times)| spans.get(&((*service).to_owned(), (*name).to_owned())) >= Some(times))
        };
        anyhow::Ok(seen.values().filter(|spans| whole(spans)).count())
    };
    let until = Instant::now() + RECEIVED_WITHIN;
    let mut last = count().await?;
    while last < receipts.len() && Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = count().await?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}
