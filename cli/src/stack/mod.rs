//! The local stack: Apache Kafka, a schema registry and the three services, as processes of their own.
//!
//! Promises:
//! - What a stack has lies under one directory; a second start carries on where the first one stopped.
//! - One start a directory at a time ([`lock`]). What a start that was killed left behind is recognised and stopped
//!   before anything begins ([`process::stop_stale`]).
//! - Nothing is downloaded twice, and an entry of the cache is complete or absent ([`fetch`]).
//! - A part that dies is started again; one that cannot live stops the stack, with the end of its log ([`supervise`]).
//! - Stopping is in order (services, registry, broker) and leaves no process, whenever it comes.
//!
//! Parts: [`state`] is the directory, [`needs`] what the machine must have, [`ports`] where things listen, [`kafka`],
//! [`registry`] and [`services`] how each part is started, [`probe`] how it says that it serves, [`broker`] a broker
//! without the rest.
//!
//! Rejected: containers (a newcomer would need a runtime for them), adopting a broker that was left behind (its
//! settings may be another version's; a clean stop and start takes seconds), threads in one process instead of
//! processes (nothing could be killed, so nothing would be proved).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::{join_all, try_join_all};
use millrace_events::Epoch;
use millrace_kafka::{Admin, KafkaConfig};
use millrace_schema::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::output::Progress;
use crate::topics;

pub mod broker;
pub mod fetch;
mod kafka;
mod lock;
pub mod needs;
mod ports;
mod probe;
mod process;
mod registry;
pub mod services;
pub mod state;
mod supervise;

use fetch::Cache;
use lock::DirLock;
use ports::Ports;
use probe::Probe;
use state::{Addresses, Layout, State};
use supervise::{Part, Supervision};

/// What a start is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The stack's directory.
    pub dir: PathBuf,
    /// Whether parts that die are started again.
    pub supervise: bool,
    /// Whether the three services belong to it; without them it is broker and registry, topics and schemas.
    pub services: bool,
    /// Where it shows what it does.
    pub progress: Progress,
}

/// A running stack. [`Stack::stop`] ends it; dropped without, its processes are killed.
#[derive(Debug)]
pub struct Stack {
    /// Where the parts listen.
    pub addresses: Addresses,
    kafka: Option<Part>,
    registry: Option<Part>,
    services: Vec<Part>,
    failures: mpsc::Receiver<anyhow::Error>,
    supervision: Supervision,
    progress: Progress,
    _lock: DirLock,
}

/// Room that a start wants for logs and indexes, beside what the cache needs.
const DATA_MIB: u64 = 512;
/// A part that says nothing for this long will not say anything.
const START_LIMIT: Duration = Duration::from_secs(300);

impl Stack {
    /// Brings a stack up: every part serves when it returns. An interrupt or a failure on the way stops what was
    /// started before it returns; [`Interrupted`] is the error of the first.
    pub async fn start(options: Options, interrupt: &CancellationToken) -> Result<Self> {
        let layout = Layout::new(&options.dir)?;
        layout.create()?;
        let lock = DirLock::take(&layout.lock(), layout.root())?;
        let cache = Cache::of_user()?;
        let ready = async {
            let java = needs::java().await?;
            needs::space(
                layout.root(),
                DATA_MIB,
                "the stack's data",
                "choose another directory with --dir",
            )?;
            cache.fill(&options.progress).await?;
            for name in ["ingest", "embedder", "indexer", "registry", "kafka"] {
                if let Some(pid) = process::stop_stale(name, &layout, Duration::from_secs(20)).await? {
                    options
                        .progress
                        .line(format!("stopped {name} of an earlier run that was killed (pid {pid})"));
                }
            }
            anyhow::Ok(java)
        };
        let java = tokio::select! {
            java = ready => java?,
            () = interrupt.cancelled() => return Err(Interrupted.into()),
        };
        let state = remember(&layout, &options.progress)?;
        layout.rotate_logs();
        let (failed, failures) = mpsc::channel(8);
        let supervision = Supervision {
            restart: options.supervise,
            failed,
            progress: options.progress.clone(),
        };
        let mut stack = Self {
            addresses: state.addresses.clone(),
            kafka: None,
            registry: None,
            services: Vec::new(),
            failures,
            supervision,
            progress: options.progress.clone(),
            _lock: lock,
        };
        let outcome = tokio::select! {
            outcome = stack.bring_up(&options, &layout, &cache, &java, &state) => outcome,
            () = interrupt.cancelled() => Err(Interrupted.into()),
        };
        match outcome {
            Ok(()) => Ok(stack),
            Err(e) => {
                stack.stop().await?;
                Err(e)
            }
        }
    }

    async fn bring_up(
        &mut self,
        options: &Options,
        layout: &Layout,
        cache: &Cache,
        java: &std::path::Path,
        state: &State,
    ) -> Result<()> {
        let schemas = Registry::new(&state.addresses.registry)?;
        let broker = kafka::prepare(layout, cache, java, &state.ports, &state.cluster_id).await?;
        let registry = registry::prepare(layout, cache, java, &state.ports);
        let supervision = &self.supervision;
        let kafka = Part::start(
            broker,
            Probe::Broker(state.addresses.kafka.clone()),
            supervision.clone(),
        );
        let registry = Part::start(registry, Probe::Registry(schemas.clone()), supervision.clone());
        let (kafka, registry) = (self.kafka.insert(kafka), self.registry.insert(registry));
        let both = async {
            tokio::try_join!(
                served(kafka, "Apache Kafka", &state.addresses.kafka, None, &options.progress),
                served(
                    registry,
                    "schema registry",
                    &state.addresses.registry,
                    None,
                    &options.progress
                ),
            )
        };
        or_failure(both, &mut self.failures).await?;
        let contracts = contracts(&state.addresses, &schemas, &options.progress);
        or_failure(contracts, &mut self.failures).await?;
        if !options.services {
            return Ok(());
        }
        let mut probes = Vec::new();
        for name in services::NAMES {
            let program = services::prepare(name, layout, cache, state)?;
            let probe = Probe::Service(millrace_rpc::client::channel(state.addresses.of(name))?);
            self.services
                .push(Part::start(program, probe.clone(), supervision.clone()));
            probes.push(probe);
        }
        let all = try_join_all(self.services.iter().zip(&probes).map(|(part, probe)| {
            served(
                part,
                part.name,
                state.addresses.of(part.name),
                Some(probe),
                &options.progress,
            )
        }));
        or_failure(all, &mut self.failures).await.map(|_| ())
    }

    /// Waits for the failure of a part that is given up.
    pub async fn failure(&mut self) -> anyhow::Error {
        match self.failures.recv().await {
            Some(reason) => reason,
            // Not while this value holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Stops everything: the services together, then the registry, then the broker.
    pub async fn stop(self) -> Result<()> {
        let step = self.progress.step("stopping");
        let mut ends = Vec::new();
        if !self.services.is_empty() {
            step.say("services");
            ends.extend(join_all(self.services.into_iter().map(Part::stop)).await);
        }
        if let Some(part) = self.registry {
            step.say("registry");
            ends.push(part.stop().await);
        }
        if let Some(part) = self.kafka {
            step.say("broker");
            ends.push(part.stop().await);
        }
        step.done("everything has stopped");
        ends.into_iter().collect()
    }
}

/// The error of a start that was interrupted; everything has been stopped.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Ports and cluster id: those of the directory, or new ones.
fn remember(layout: &Layout, progress: &Progress) -> Result<State> {
    let kept = State::load(layout)?;
    let (ports, moved) = Ports::choose(kept.as_ref().map(|s| s.ports.clone()))?;
    for m in moved {
        progress.line(format!(
            "port {} of {} is taken by another program; it moves to {}",
            m.from, m.part, m.to
        ));
    }
    let cluster_id = kept.map_or_else(|| URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4()), |s| s.cluster_id);
    let state = State::new(cluster_id, ports);
    state.save(layout)?;
    Ok(state)
}

/// Waits until a part serves, showing what it waits for.
async fn served(part: &Part, name: &str, address: &str, probe: Option<&Probe>, progress: &Progress) -> Result<()> {
    let step = progress.step(name);
    step.say("starting");
    let explain = async || {
        if let Some(reason) = match probe {
            Some(probe) => probe.why_not().await,
            None => None,
        } {
            step.tick(reason);
        }
    };
    let waiting = supervise::with_ticks(part.serving(), Duration::from_secs(2), explain);
    if tokio::time::timeout(START_LIMIT, waiting).await.is_err() {
        let why = match probe {
            Some(probe) => probe.why_not().await,
            None => None,
        };
        let why = why.unwrap_or_else(|| "it does not answer".to_owned());
        return Err(anyhow!("{name} is not ready after {} s: {why}", START_LIMIT.as_secs()));
    }
    step.done(format!("serving on {address}"));
    Ok(())
}

/// Topics and schemas, as `millrace topics apply` and a registry's owner would make them.
async fn contracts(addresses: &Addresses, schemas: &Registry, progress: &Progress) -> Result<()> {
    let step = progress.step("topics and schemas");
    let kafka = KafkaConfig {
        bootstrap_servers: addresses.kafka.clone(),
        ..KafkaConfig::default()
    };
    let admin = Admin::new(&kafka)?;
    let applied = topics::apply(&admin, Epoch::FIRST, Some(1))
        .await
        .context("cannot create the topics")?;
    let registered = topics::register(schemas).await.context("cannot register the schemas")?;
    let created = applied.iter().filter(|t| t.created).count();
    step.done(format!(
        "{} topics ({created} new), {registered} schemas",
        applied.len()
    ));
    Ok(())
}

/// The future's outcome, or the failure of a part that comes first.
async fn or_failure<T>(
    future: impl Future<Output = Result<T>>,
    failures: &mut mpsc::Receiver<anyhow::Error>,
) -> Result<T> {
    tokio::select! {
        outcome = future => outcome,
        Some(reason) = failures.recv() => Err(reason),
    }
}
