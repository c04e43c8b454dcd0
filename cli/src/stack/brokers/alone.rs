//! A broker alone, with nothing in it, for as long as a command runs.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

use crate::output::Progress;
use crate::stack::fetch::Cache;
use crate::stack::ports::Ports;
use crate::stack::probe::Probe;
use crate::stack::process::{self, Process};
use crate::stack::size::Size;
use crate::stack::state::Layout;
use crate::stack::supervise::tail;
use crate::stack::{START_LIMIT, needs};

/// A running broker. [`Broker::stop`] ends it; dropped without, it is killed. Its data goes with it.
#[derive(Debug)]
pub struct Broker {
    /// Bootstrap server, `host:port`.
    pub address: String,
    process: Process,
    _dir: TempDir,
}

impl Broker {
    /// Starts one in a temporary directory that will have to hold `mib`.
    pub async fn start(cache: &Cache, mib: u64, progress: &Progress) -> Result<Self> {
        let java = needs::java().await?;
        cache.fill_broker(progress).await?;
        let step = progress.step("Apache Kafka");
        step.say("starting");
        let dir = TempDir::with_prefix("millrace-").context("cannot make a temporary directory")?;
        let layout = Layout::new(dir.path())?;
        layout.create()?;
        needs::space(
            layout.root(),
            mib,
            "the broker's data",
            "set TMPDIR to a directory on another disk",
        )?;
        let size = Size::default();
        let (ports, _) = Ports::choose(None, &size.listeners())?;
        let cluster_id = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4());
        let programs = super::prepare(&layout, cache, &java, (size, &ports), &cluster_id).await?;
        let program = programs.first().context("a stack has a broker")?;
        let mut process = program.spawn()?;
        let address = format!("127.0.0.1:{}", ports.of("kafka")?);
        let probe = Probe::Broker(address.clone());
        let end_of_log = || tail(&layout.log("kafka"), 20);
        tokio::select! {
            served = tokio::time::timeout(START_LIMIT, probe.until_serving()) => {
                served.with_context(|| format!("the broker is not ready after {} s", START_LIMIT.as_secs()))?;
            }
            ended = process.ended() => {
                bail!("the broker ended ({}); the end of its log:\n{}", process::describe(ended?), end_of_log());
            }
        }
        step.done(format!("serving on {address}"));
        Ok(Self {
            address,
            process,
            _dir: dir,
        })
    }

    /// Stops it and removes its data.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await?;
        Ok(())
    }
}
