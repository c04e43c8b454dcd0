//! The local stack: Apache Kafka, a schema registry and the three services, as processes of their own.
//!
//! Promises:
//! - What a stack has lies under one directory; a second start carries on where the first one stopped.
//! - One start a directory at a time ([`lock`]). What a start that was killed left behind is recognised and stopped
//!   before anything begins ([`process::stop_stale`]).
//! - Nothing is downloaded twice, and an entry of the cache is complete or absent ([`fetch`]).
//! - A part that dies is started again; one that cannot live stops the stack, with the end of its log ([`supervise`]).
//! - Stopping is in order (services, registry, brokers) and leaves no process, whenever it comes.
//!
//! Parts: [`size`] is how many of each there are and what they are called, [`state`] the directory, [`needs`] what the
//! machine must have, [`ports`] where things listen, [`brokers`], [`registry`] and [`services`] how each part is started,
//! [`probe`] how it says that it serves.
//!
//! Rejected: containers (a newcomer would need a runtime for them), adopting a broker that was left behind (its
//! settings may be another version's; a clean stop and start takes seconds), threads in one process instead of
//! processes (nothing could be killed, so nothing would be proved).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::{join_all, try_join_all};
use millrace_events::{Epoch, Lane};
use millrace_kafka::{Admin, KafkaConfig};
use millrace_schema::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::output::Progress;
use crate::topics;
use crate::traces::{self, receiver::Receiver};

pub mod brokers;
pub mod fetch;
mod lock;
pub mod needs;
mod ports;
mod probe;
mod process;
mod registry;
pub mod services;
pub mod size;
pub mod state;
mod supervise;

use fetch::Cache;
use lock::DirLock;
use ports::Ports;
use probe::Probe;
use size::{Asked, Size};
use state::{Addresses, Layout, State};
use supervise::{Part, Supervision};

/// What a start is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The stack's directory.
    pub dir: PathBuf,
    /// How many of each it is to have.
    pub asked: Asked,
    /// Lanes with their weights, beside those that it has.
    pub lanes: BTreeMap<Lane, Option<u32>>,
    /// Whether vectors that were computed are remembered from one start to the next.
    pub remembers: bool,
    /// Whether parts that die are started again.
    pub supervise: bool,
    /// Whether the three services belong to it; without them it is broker and registry, topics and schemas.
    pub services: bool,
    /// Services that run from another build of this program, by name.
    pub programs: BTreeMap<String, PathBuf>,
    /// Where it shows what it does.
    pub progress: Progress,
}

/// A running stack. [`Stack::stop`] ends it; dropped without, its processes are killed.
#[derive(Debug)]
pub struct Stack {
    /// Where the parts listen.
    pub addresses: Addresses,
    brokers: Vec<Part>,
    registry: Option<Part>,
    services: Vec<Part>,
    traces: Option<Receiver>,
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
        let kept = State::load(&layout)?;
        let size = Size::choose(options.asked, kept.as_ref().map(|state| state.size))?;
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
            for name in size.parts() {
                if let Some(pid) = process::stop_stale(&name, &layout, Duration::from_secs(20)).await? {
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
        let state = remember(kept, size, &options.lanes, &layout, &options.progress)?;
        layout.rotate_logs(size);
        let (failed, failures) = mpsc::channel(8);
        let supervision = Supervision {
            restart: options.supervise,
            failed,
            progress: options.progress.clone(),
        };
        let mut stack = Self {
            addresses: state.addresses.clone(),
            brokers: Vec::new(),
            registry: None,
            services: Vec::new(),
            traces: None,
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
        let brokers = brokers::prepare(layout, cache, java, (state.size, &state.ports), &state.cluster_id).await?;
        let registry = registry::prepare(layout, cache, java, &state.ports)?;
        let supervision = &self.supervision;
        // All before any is waited for: each serves only once there is a quorum.
        for (broker, address) in brokers.into_iter().zip(state.addresses.brokers()) {
            let probe = Probe::Broker(address.to_owned());
            self.brokers.push(Part::start(broker, probe, supervision.clone()));
        }
        let registry = Part::start(registry, Probe::Registry(schemas.clone()), supervision.clone());
        let (brokers, registry) = (&self.brokers, self.registry.insert(registry));
        let both = async {
            tokio::try_join!(
                served(brokers, "Apache Kafka", &state.addresses.kafka, None, &options.progress),
                served(
                    std::slice::from_ref(registry),
                    "schema registry",
                    &state.addresses.registry,
                    None,
                    &options.progress
                ),
            )
        };
        or_failure(both, &mut self.failures).await?;
        let contracts = contracts(state, &schemas, &options.progress);
        or_failure(contracts, &mut self.failures).await?;
        if !options.services {
            return Ok(());
        }
        if services::sends_here() {
            let (port, folder) = (state.ports.of(traces::PART)?, layout.data(traces::PART));
            self.traces = Some(Receiver::start(port, &folder).await?);
        }
        let mut probes = Vec::new();
        for instance in state.size.instances() {
            let program = services::prepare(&instance, layout, cache, state, options)?;
            let address = state.addresses.of(&program.name);
            let address = address.with_context(|| format!("{} has no address", program.name))?;
            let probe = Probe::Service(millrace_rpc::client::channel(address)?);
            self.services
                .push(Part::start(program, probe.clone(), supervision.clone()));
            probes.push((address, probe));
        }
        let all = self.services.iter().zip(&probes).map(|(part, (address, probe))| {
            let part = std::slice::from_ref(part);
            served(part, &part[0].name, address, Some(probe), &options.progress)
        });
        let all = try_join_all(all);
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

    /// Stops everything: the services together, then the registry, then the brokers together.
    pub async fn stop(self) -> Result<()> {
        let step = self.progress.step("stopping");
        let mut ends = Vec::new();
        if !self.services.is_empty() {
            step.say("services");
            ends.extend(join_all(self.services.into_iter().map(Part::stop)).await);
        }
        if let Some(receiver) = self.traces {
            ends.push(receiver.stop().await);
        }
        if let Some(part) = self.registry {
            step.say("registry");
            ends.push(part.stop().await);
        }
        if !self.brokers.is_empty() {
            step.say("broker");
            ends.extend(join_all(self.brokers.into_iter().map(Part::stop)).await);
        }
        step.done("everything has stopped");
        ends.into_iter().collect()
    }
}

/// The error of a start that was interrupted; everything has been stopped.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Ports, cluster id and lanes: those of the directory, or new ones. What is in a lane must be read: none goes away.
fn remember(
    kept: Option<State>,
    size: Size,
    lanes: &BTreeMap<Lane, Option<u32>>,
    layout: &Layout,
    progress: &Progress,
) -> Result<State> {
    let mut all = kept.as_ref().map(|state| state.lanes.clone()).unwrap_or_default();
    for (lane, weight) in lanes {
        let known = all.entry(lane.clone()).or_insert(1);
        *known = weight.unwrap_or(*known);
    }
    let (ports, moved) = Ports::choose(kept.as_ref().map(|s| s.ports.clone()), &size.listeners())?;
    for m in moved {
        progress.line(format!(
            "port {} of {} is taken by another program; it moves to {}",
            m.from, m.listener, m.to
        ));
    }
    let cluster_id = kept.map_or_else(|| URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4()), |s| s.cluster_id);
    let state = State::new(cluster_id, size, ports)?.with_lanes(all);
    state.save(layout)?;
    Ok(state)
}

/// Waits until parts serve, showing what it waits for.
async fn served(parts: &[Part], name: &str, address: &str, probe: Option<&Probe>, progress: &Progress) -> Result<()> {
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
    let serving = join_all(parts.iter().map(Part::serving));
    let waiting = supervise::with_ticks(serving, Duration::from_secs(2), explain);
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
async fn contracts(state: &State, schemas: &Registry, progress: &Progress) -> Result<()> {
    let step = progress.step("topics and schemas");
    let kafka = KafkaConfig {
        bootstrap_servers: state.addresses.kafka.clone(),
        ..KafkaConfig::default()
    };
    let admin = Admin::new(&kafka)?;
    let brokers = usize::from(state.size.brokers);
    let counted = tokio::time::timeout(START_LIMIT, counts(&admin, brokers)).await;
    counted.context("the cluster does not count all of its brokers")?;
    let lanes = state.lanes.keys().cloned().collect();
    let applied = topics::apply(&admin, Epoch::FIRST, &lanes, Some(topics::default_replication(brokers)))
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

/// Waits until the cluster counts its brokers: one that answers may not be a member yet, and holds no replica then.
async fn counts(admin: &Admin, brokers: usize) {
    let mut again = tokio::time::interval(Duration::from_millis(200));
    loop {
        again.tick().await;
        // A cluster that does not answer yet counts none.
        if admin.brokers().await.is_ok_and(|counted| counted >= brokers) {
            return;
        }
    }
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
