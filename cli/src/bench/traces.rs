//! What traces cost, and whether they are whole: documents submitted as fast as they are taken, with traces and without in
//! turn, on one stack for each figure, whose services are started anew for each turn.
//!
//! | figure | documents | model |
//! |---|---|---|
//! | [`Figure::Prose`] | one chunk of prose each | the real one, as `millrace up` runs it |
//! | [`Figure::Notes`] | one line each | one that costs nothing: all that is left are the services and the broker |
//!
//! One broker for all turns: two of them differ by more than traces cost, for as long as they live, since each compiles its own code
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

use super::documents::{Prose, note, notes};
use super::processor;
use super::report::{Row, Target, Unit};
use super::whole::{self, AT_ONCE, INDEXED_WITHIN};
use crate::demo::corpus::Document;
use crate::output::Progress;
use crate::stack::state::{Layout, write_whole};
use crate::traces::{PART, store};

/// Before the clock of each turn: connections, schemas and caches are made.
const WARM_UP: usize = 1000;
/// Receipts whose traces are looked at.
const LOOKED_AT: usize = 10_000;
/// Whose traces, and whose processor time.
const SERVICES: [&str; 3] = ["ingest", "embedder", "indexer"];
/// What the other side of each pair is.
const WITHOUT: &str = "the same without traces";
/// Documents that become searchable within [`INDEXED_WITHIN`], at the least.
const AT_LEAST: u32 = 10_000;
/// Spans that were made are sent within a second.
const RECEIVED_WITHIN: Duration = Duration::from_secs(30);

/// One figure of `bench trace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Figure {
    /// One chunk of prose a document, the real model
    Prose,
    /// One line a document, a model that costs nothing
    Notes,
}

/// All of them.
pub const FIGURES: [Figure; 2] = [Figure::Prose, Figure::Notes];

/// What is measured, and on what.
#[derive(Debug)]
pub struct Setup {
    /// These.
    pub figures: Vec<Figure>,
    /// Documents of a run; none: as many as the figure has by itself.
    pub documents: Option<usize>,
    /// Text files; none: the crates of the cargo registry.
    pub corpus: Option<PathBuf>,
    /// Directory of the model whose tokenizer cuts the prose.
    pub model: PathBuf,
    /// How often each is run.
    pub runs: usize,
}

/// Takes the figures.
pub async fn run(setup: &Setup, progress: &Progress) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for figure in &setup.figures {
        let work = Work::of(*figure, setup).await?;
        rows.extend(work.rows(setup.runs, progress).await?);
    }
    Ok(rows)
}

/// What a figure submits.
struct Work {
    figure: Figure,
    /// Texts of documents; none: notes.
    chunks: Vec<String>,
    /// Documents of a run.
    documents: usize,
    /// Before the first turn: the broker's code is compiled.
    first: usize,
}

/// Both sides of the pairs.
#[derive(Default)]
struct Ran {
    with: Side,
    without: Side,
    /// Percentage of receipts whose trace is complete.
    complete: Vec<f64>,
}

/// Of each run.
#[derive(Default)]
struct Side {
    /// Documents a second.
    rates: Vec<f64>,
    /// Seconds that the services have used, all cores together, for a thousand documents.
    used: Vec<f64>,
}

impl Work {
    async fn of(figure: Figure, setup: &Setup) -> Result<Self> {
        let (documents, first) = match figure {
            Figure::Prose => (2000, 5000),
            Figure::Notes => (10_000, 30_000),
        };
        let documents = setup.documents.unwrap_or(documents);
        let chunks = match figure {
            Figure::Notes => Vec::new(),
            Figure::Prose => {
                let (corpus, model) = (setup.corpus.clone(), setup.model.clone());
                let gather = move || Prose::gather(corpus.as_deref(), &model, documents.div_ceil(Prose::LEAST_CHUNKS));
                tokio::task::spawn_blocking(gather).await??.chunks
            }
        };
        Ok(Self {
            figure,
            chunks,
            documents,
            first,
        })
    }

    fn name(&self) -> String {
        let what = match self.figure {
            Figure::Prose => "documents of a chunk of prose, the real model",
            Figure::Notes => "documents of a line, a model that costs nothing",
        };
        format!("{} {what}: submit to searchable, every trace kept", self.documents)
    }

    fn document(&self, name: &str, number: usize) -> Document {
        let mut document = note(name, number);
        if let Some(chunk) = self.chunks.get(number) {
            document.text.clone_from(chunk);
        }
        document
    }

    async fn rows(&self, runs: usize, progress: &Progress) -> Result<[Row; 3]> {
        let step = progress.step("traces");
        let free = match self.figure {
            Figure::Prose => None,
            Figure::Notes => Some(ModelEndpoint::start(whole::DIMENSIONS, None).await?),
        };
        let environment = free.as_ref().map(ModelEndpoint::environment).unwrap_or_default();
        let turns = async |stack: &Stack| self.turns(stack, runs, |what| step.say(what)).await;
        let ran = whole::on_stack(environment, true, turns).await?;
        step.done("measured");
        Ok([
            Row {
                figure: "traces",
                name: self.name(),
                unit: Unit::DocumentsPerSecond,
                millrace: ran.with.rates,
                yardstick: WITHOUT,
                beside: Ok(ran.without.rates),
                target: Target::AtLeastTimes(0.97),
            },
            Row {
                figure: "traces",
                name: format!(
                    "processor time of the three services for each 1,000 documents, {} a run",
                    self.documents
                ),
                unit: Unit::Seconds,
                millrace: ran.with.used,
                yardstick: WITHOUT,
                beside: Ok(ran.without.used),
                target: Target::None,
            },
            Row {
                figure: "traces",
                name: format!("receipts of these {} whose trace is complete", self.documents),
                unit: Unit::Percent,
                millrace: ran.complete,
                yardstick: "",
                beside: Ok(Vec::new()),
                target: Target::AtLeast(99.9),
            },
        ])
    }

    /// Runs in pairs; which goes first alternates.
    async fn turns(&self, stack: &Stack, runs: usize, say: impl Fn(String)) -> Result<Ran> {
        say("the broker warms up".to_owned());
        let client = Client::new(&stack.addresses, "bench")?;
        searchable(stack, &client, notes("first", self.first)).await?;
        let services = Services::of(stack)?;
        let mut ran = Ran::default();
        for run in 0..runs {
            for on in [run % 2 == 1, run % 2 == 0] {
                let what = if on { "with" } else { "without" };
                say(format!("{what} traces, run {} of {runs}", run + 1));
                let name = format!("{what} {run}");
                services.start_anew(stack, on, &name).await?;
                let turn = self.turn(stack, &client, &name, on, &mut ran).await;
                turn.with_context(|| format!("{what} traces"))?;
            }
        }
        Ok(ran)
    }

    async fn turn(&self, stack: &Stack, client: &Client, name: &str, on: bool, ran: &mut Ran) -> Result<()> {
        searchable(stack, client, notes(&format!("{name}, before"), WARM_UP)).await?;
        let documents = (0..self.documents).map(|number| self.document(name, number)).collect();
        let (began, before) = (Instant::now(), used(stack)?);
        let receipts = searchable(stack, client, documents).await?;
        let rate = self.documents as f64 / began.elapsed().as_secs_f64();
        let side = if on { &mut ran.with } else { &mut ran.without };
        side.rates.push(rate);
        side.used.push(1000.0 * (used(stack)? - before) / self.documents as f64);
        // Not by a count alone.
        for receipt in receipts.iter().step_by(self.documents.div_ceil(50)) {
            client.reaches(receipt, &[DocumentState::Indexed]).await?;
        }
        if on {
            let looked_at = &receipts[self.documents.saturating_sub(LOOKED_AT)..];
            let complete = complete(stack.dir(), looked_at).await?;
            ran.complete.push(100.0 * complete as f64 / looked_at.len() as f64);
        }
        Ok(())
    }
}

/// Seconds that the services have used since they were started.
fn used(stack: &Stack) -> Result<f64> {
    SERVICES.iter().map(|service| processor::of_part(stack, service)).sum()
}

/// The config files of a stack's services, with where to send traces.
struct Services {
    files: Vec<(&'static str, PathBuf, toml::Table)>,
}

impl Services {
    fn of(stack: &Stack) -> Result<Self> {
        let layout = Layout::new(stack.dir())?;
        let read = |service: &'static str| {
            let path = layout.config(service);
            let config = fs::read_to_string(&path)?.parse()?;
            Ok((service, path, config))
        };
        let files = SERVICES.into_iter().map(read).collect::<Result<_>>()?;
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
        try_join_all(SERVICES.map(|service| stack.kill(service, Signal::TERM))).await?;
        try_join_all(SERVICES.map(|service| stack.serving(service))).await?;
        Ok(())
    }
}

/// Submits documents of one part each, [`AT_ONCE`], until all are indexed.
async fn searchable(stack: &Stack, client: &Client, documents: Vec<Document>) -> Result<Vec<Receipt>> {
    let before = indexed(stack).await?;
    let all = i64::try_from(documents.len())?;
    let limit = INDEXED_WITHIN * u32::try_from(documents.len())?.div_ceil(AT_LEAST);
    let submits = documents
        .into_iter()
        .map(|Document { id, text }| async move { client.submit(&id, text).await });
    let receipts = stream::iter(submits).buffer_unordered(AT_ONCE).try_collect().await?;
    poll::until("all documents to be indexed", limit, async || {
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
