//! `millrace bench`. [`model`] is what `pipeline` and `embed` are told of a model.

mod model;

use std::path::PathBuf;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use millrace_embedder::model::Choice;
use millrace_kafka::KafkaConfig;
use tokio_util::sync::CancellationToken;

use self::model::{OfModel, absolute, backend};
use super::up::on_signal;
use crate::bench::embed::bare::Model;
use crate::bench::report::{self, Machine, Row};
use crate::bench::{FIGURES, Figure, Lab, child, embed, memory, pipeline, traces};
use crate::output::Progress;
use crate::stack::Interrupted;
use crate::stack::brokers::alone::Broker;
use crate::stack::fetch::Cache;

const EXAMPLES: &str = "Examples:
  millrace bench flow                                  some minutes; what stands in docs/performance.md
  millrace bench flow --only a,c --runs 3              two figures, medians of three
  millrace bench flow --peers ../peers                 beside Parallel Consumer and Java's client, with Maven and a JDK
  millrace bench flow --bootstrap broker-1:9092        on that broker; topics millrace.bench.* come and go
  millrace bench flow --set linger.ms=0                what a setting of the client's does
  millrace bench memory --json                         one object on stdout
  millrace bench trace                                 what traces cost, and whether each is complete; ten minutes
  millrace bench trace --only prose --runs 20          with the real model, as often as a noisy machine wants
  millrace bench pipeline                              submit to searchable on whole stacks; ten minutes
  millrace bench pipeline --only e --documents 3000    one figure, with more documents
  millrace bench pipeline --only b,g --backend cuda --max-batch-tokens 16384 --max-batch-texts 256 --prepared-batches 1 --onnxruntime /opt/onnxruntime/libonnxruntime.so
  millrace bench embed                                 the embedder's batches beside a bare loop of the same runtime
  millrace bench embed --backend openvino --precision bf16 --openvino /opt/openvino/libopenvino_c.so.2641
  millrace bench embed --backend cuda --max-batch-tokens 32768 --max-batch-texts 512 --prepared-batches 1 --onnxruntime /opt/onnxruntime/libonnxruntime.so

Exit code 0 when it ran, 1 when it could not or when outputs were wrong.";

/// Measure the stage runtime on a real broker, each figure beside its yardstick
///
/// Starts a broker of its own in a temporary directory, unless --bootstrap names one. Each bench reads its outputs
/// back, `read_committed`, and fails when one lacks, stands there twice or out of its key's order. Figures decide
/// nothing: the table says which targets are met.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Throughput, latency, slow records and restarts of one stage
    #[command(after_help = EXAMPLES)]
    Flow {
        /// Take only these
        #[arg(long, value_enum, value_delimiter = ',', value_name = "a,b,…")]
        only: Vec<Figure>,
        /// Run what others use too: a folder with parallel-consumer/ and java-loop/
        #[arg(long, value_name = "DIR")]
        peers: Option<PathBuf>,
        /// How often each figure is taken; the median counts
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
        #[command(flatten)]
        common: Common,
    },
    /// Peak memory of a process whose stage is stalled before a large backlog
    #[command(after_help = EXAMPLES)]
    Memory {
        /// How often each figure is taken; the median counts
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
        #[command(flatten)]
        common: Common,
    },
    /// The whole pipeline with traces and without in turn: the real model, and one that costs nothing; on stacks of its own
    #[command(after_help = EXAMPLES)]
    Trace {
        /// Take only these
        #[arg(long, value_enum, value_delimiter = ',', value_name = "prose,notes")]
        only: Vec<traces::Figure>,
        /// How many documents a run submits [default: prose 2000, notes 10000]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        documents: Option<u32>,
        /// Text files to cut prose of [default: Markdown of the crates in the cargo registry]
        #[arg(long, value_name = "DIR")]
        corpus: Option<PathBuf>,
        /// How often each of both is run; the median counts
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Submit to searchable: the real model, a model that costs nothing, two tenants; on stacks of its own, without traces
    #[command(after_help = EXAMPLES)]
    Pipeline {
        /// Take only these
        #[arg(long, value_enum, value_delimiter = ',', value_name = "b,e,…")]
        only: Vec<pipeline::Figure>,
        /// How many documents a run submits; of g the small tenant [default: b 60, e 1000, g 100]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        documents: Option<u32>,
        /// Text files that b submits [default: Markdown of the crates in the cargo registry]
        #[arg(long, value_name = "DIR")]
        corpus: Option<PathBuf>,
        /// What the model of b and g runs on: cpu, cuda or openvino
        #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = backend)]
        backend: Choice,
        #[command(flatten)]
        model: OfModel,
        /// How often each figure is taken; the median counts
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// The embedder's batches beside a bare loop over the same runtime, some minutes a backend
    #[command(after_help = EXAMPLES)]
    Embed {
        /// Backends to measure: cpu, cuda, openvino
        #[arg(long = "backend", value_delimiter = ',', value_name = "NAME,…", default_value = "cpu", value_parser = backend)]
        backends: Vec<Choice>,
        /// Model directory [default: the local stack's]
        #[arg(long = "model", value_name = "DIR")]
        model_dir: Option<PathBuf>,
        #[command(flatten)]
        model: OfModel,
        /// Text files to cut chunks of [default: Markdown of the crates in the cargo registry]
        #[arg(long, value_name = "DIR")]
        corpus: Option<PathBuf>,
        /// About how long each figure is taken
        #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
        seconds: f64,
        /// How often each figure is taken; the median counts
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        runs: u8,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Run a stage to be measured
    #[command(hide = true)]
    Child(child::Child),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Measure on this broker [default: one of its own]
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Set a property of every client of Millrace's and of its yardsticks, as `kafka.properties` does for a service
    #[arg(long, value_name = "NAME=VALUE", value_parser = child::property)]
    set: Vec<(String, String)>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Room that the backlogs of `bench memory` want, and more.
const DATA_MIB: u64 = 8 << 10;

/// Measures.
pub async fn run(bench: Bench) -> Result<()> {
    match bench.what {
        What::Child(child) => child::run(child).await,
        What::Flow {
            only,
            peers,
            runs,
            common,
        } => {
            let figures = if only.is_empty() { FIGURES.to_vec() } else { only };
            on_broker(&common, usize::from(runs), async |lab, cache| {
                let lab = match peers {
                    Some(dir) => lab.with_peers(dir, cache).await?,
                    None => lab,
                };
                lab.flow(&figures).await
            })
            .await
        }
        What::Trace {
            only,
            documents,
            corpus,
            runs,
            json,
        } => {
            let bench = Measuring::begin()?;
            let cache = Cache::of_user()?;
            cache.fill(&bench.progress).await?;
            let setup = traces::Setup {
                figures: if only.is_empty() {
                    traces::FIGURES.to_vec()
                } else {
                    only
                },
                documents: documents.map(usize::try_from).transpose()?,
                corpus,
                model: cache.model(),
                runs: usize::from(runs),
            };
            let rows = traces::run(&setup, &bench.progress).boxed_local();
            bench.show(rows, setup.runs, json).await
        }
        What::Pipeline {
            only,
            documents,
            corpus,
            backend,
            model,
            runs,
            json,
        } => {
            let bench = Measuring::begin()?;
            let (limits, openvino) = (model.limits()?, model.openvino(&[backend])?);
            let onnxruntime = absolute(model.onnxruntime.as_ref())?;
            let cache = Cache::of_user()?;
            cache.fill(&bench.progress).await?;
            let figures = if only.is_empty() {
                pipeline::FIGURES.to_vec()
            } else {
                only
            };
            let setup = pipeline::Setup {
                figures,
                documents: documents.map(usize::try_from).transpose()?,
                corpus,
                runs: usize::from(runs),
                model: Model {
                    dir: cache.model(),
                    choice: backend,
                    onnxruntime: onnxruntime.unwrap_or_else(|| cache.onnxruntime()),
                    openvino,
                },
                in_process: model.in_process,
                limits,
            };
            let rows = pipeline::run(&setup, &bench.progress).boxed_local();
            bench.show(rows, setup.runs, json).await
        }
        What::Embed {
            backends,
            model_dir,
            model,
            corpus,
            seconds,
            runs,
            json,
        } => {
            let bench = Measuring::begin()?;
            let cache = Cache::of_user()?;
            let (limits, openvino) = (model.limits()?, model.openvino(&backends)?);
            if model_dir.is_none() || model.onnxruntime.is_none() {
                cache.fill(&bench.progress).await?;
            }
            let setup = embed::Setup {
                model: model_dir.unwrap_or_else(|| cache.model()),
                openvino,
                onnxruntime: model.onnxruntime.unwrap_or_else(|| cache.onnxruntime()),
                backends,
                in_process: model.in_process,
                limits,
                corpus,
                runs: usize::from(runs),
                seconds,
            };
            let rows = embed::run(&setup, &bench.progress).boxed_local();
            bench.show(rows, setup.runs, json).await
        }
        What::Memory { runs, common } => {
            on_broker(&common, usize::from(runs), async |lab, _| memory::run(&lab).await).await
        }
    }
}

/// A bench that has begun.
struct Measuring {
    interrupt: CancellationToken,
    machine: Machine,
    progress: Progress,
}

impl Measuring {
    fn begin() -> Result<Self> {
        let (interrupt, machine, progress) = (on_signal()?, Machine::this(), Progress::stderr());
        progress.line(machine.line());
        Ok(Self {
            interrupt,
            machine,
            progress,
        })
    }

    /// What was measured.
    async fn show(&self, rows: LocalBoxFuture<'_, Result<Vec<Row>>>, runs: usize, json: bool) -> Result<()> {
        let rows = unless_interrupted(rows, &self.interrupt).await?;
        report::show(&rows, runs, &self.machine, json);
        Ok(())
    }
}

/// What was measured. An interrupt stops whatever measures.
async fn unless_interrupted(
    measuring: LocalBoxFuture<'_, Result<Vec<Row>>>,
    interrupt: &CancellationToken,
) -> Result<Vec<Row>> {
    let measured = interrupt.run_until_cancelled(measuring).await;
    measured.unwrap_or_else(|| Err(Interrupted.into()))
}

/// Runs on the broker that was named, or on a new one that is stopped in every case.
async fn on_broker(
    common: &Common,
    runs: usize,
    measure: impl AsyncFnOnce(Lab, &Cache) -> Result<Vec<Row>>,
) -> Result<()> {
    let (
        Measuring {
            interrupt,
            machine,
            progress,
        },
        cache,
    ) = (Measuring::begin()?, Cache::of_user()?);
    let mut broker = None;
    let all = async {
        let bootstrap = match &common.bootstrap {
            Some(bootstrap) => bootstrap.clone(),
            None => broker
                .insert(Broker::start(&cache, DATA_MIB, &progress).await?)
                .address
                .clone(),
        };
        let kafka = KafkaConfig {
            bootstrap_servers: bootstrap,
            properties: common.set.iter().cloned().collect(),
        };
        let lab = Lab::new(kafka, runs, progress.clone())?;
        measure(lab, &cache).await
    };
    let rows = unless_interrupted(all.boxed_local(), &interrupt).await;
    if let Some(broker) = broker {
        broker.stop().await?;
    }
    report::show(&rows?, runs, &machine, common.json);
    Ok(())
}
