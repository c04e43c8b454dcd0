//! A stack of real parts for tests: `millrace up` in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::poll;
use crate::size::{Instance, Size, broker};
use crate::traces::{self, Receiver};

/// Fetching through Maven on a bare machine is the longest part.
const START_LIMIT: Duration = Duration::from_secs(900);
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// Where the parts of a stack listen, as `millrace up --json` prints it.
#[derive(Debug, Clone, Deserialize)]
pub struct Addresses {
    /// Bootstrap servers, all of them.
    pub kafka: String,
    /// The registry's API.
    pub registry: String,
    /// gRPC; of the first instance.
    pub ingest: String,
    /// gRPC; of the first instance.
    pub embedder: String,
    /// gRPC.
    pub indexer: String,
    /// gRPC of the other instances, by part.
    #[serde(flatten)]
    pub others: BTreeMap<String, String>,
}

impl Addresses {
    /// Where an instance of a service listens, by its part.
    pub fn of(&self, part: &str) -> Result<&str> {
        Ok(match part {
            "ingest" => &self.ingest,
            "embedder" => &self.embedder,
            "indexer" => &self.indexer,
            other => self.others.get(other).with_context(|| format!("there is no {other}"))?,
        })
    }
}

/// A running stack. Dropped, it is killed; [`Stack::down`] stops it cleanly.
#[derive(Debug)]
pub struct Stack {
    /// Where its parts listen.
    pub addresses: Addresses,
    /// How many of each there are.
    pub size: Size,
    millrace: PathBuf,
    environment: Vec<(String, String)>,
    dir: TempDir,
    up: Child,
    /// The processes that served when `up` said ready.
    first: Vec<Pid>,
    /// What receives the traces of its services, where that is not `up` itself.
    traces: Option<Receiver>,
}

/// What a broker says when it ends a transaction without its markers; readers of those partitions wait for ever.
const FORGOTTEN: &str = "likely deleted already and hence can be skipped";

impl Stack {
    /// Starts a new stack with the given `millrace` binary, and waits until all of it serves. Its traces come here.
    pub async fn up(millrace: &Path) -> Result<Self> {
        let receiver = Receiver::start().await?;
        let environment = vec![(traces::ENDPOINT.to_owned(), receiver.address.clone())];
        let mut stack = Self::up_with(millrace, Size::default(), environment, |_| ()).await?;
        stack.traces = Some(receiver);
        Ok(stack)
    }

    /// What receives the traces of a stack of [`Stack::up`].
    pub fn traces(&self) -> Result<&Receiver> {
        self.traces.as_ref().context("this stack's traces go to `up`")
    }

    /// As [`Stack::up`], of a size, with variables in the environment of its parts. `chosen` is told where they will listen as soon as
    /// that is known, before any of them serves.
    pub async fn up_with(
        millrace: &Path,
        size: Size,
        environment: Vec<(String, String)>,
        chosen: impl FnOnce(&Addresses),
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("millrace-test-").tempdir()?;
        Self::start(millrace, dir, size, environment, chosen).await
    }

    async fn start(
        millrace: &Path,
        dir: TempDir,
        size: Size,
        environment: Vec<(String, String)>,
        chosen: impl FnOnce(&Addresses),
    ) -> Result<Self> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.path().join("up.log"))?;
        let mut up = Command::new(millrace)
            .args(["up", "--json", "--dir"])
            .arg(dir.path())
            .args(["--brokers", &size.brokers.to_string()])
            .args(["--replicas", &size.replicas.to_string()])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", millrace.display()))?;
        let stdout = up.stdout.take().context("no stdout")?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let tell = async {
            chosen(&chosen_in(dir.path()).await?);
            // What follows is up's to say.
            std::future::pending::<Result<usize>>().await
        };
        let ready = async {
            tokio::select! {
                read = stdout.read_line(&mut line) => Ok(read?),
                Err(error) = tell => Err(error),
            }
        };
        let read = timeout(START_LIMIT, ready).await;
        let addresses = match read {
            Ok(Ok(_)) => serde_json::from_str(&line).ok(),
            _ => None,
        };
        let Some(addresses) = addresses else {
            let told = fs::read_to_string(dir.path().join("up.log")).unwrap_or_default();
            bail!("the stack did not come up; it said {line:?} and\n{told}");
        };
        let mut stack = Self {
            addresses,
            size,
            millrace: millrace.to_owned(),
            environment,
            dir,
            up,
            first: Vec::new(),
            traces: None,
        };
        stack.first = size.parts().iter().map(|part| stack.pid(part)).collect::<Result<_>>()?;
        Ok(stack)
    }

    /// The stack's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What `up` has told so far, and the end of each log: for a test that fails.
    pub fn told(&self) -> String {
        let end = |path: &Path| {
            let text = fs::read(path)
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        let mut told = end(&self.dir.path().join("up.log"));
        for part in self.size.instances().iter().map(Instance::part) {
            told.push_str(&format!("\n--- {part}\n{}", end(&self.log(&part))));
        }
        told.push_str("\n--- transactions whose markers a broker has forgotten\n");
        told.extend(self.forgotten().into_iter().map(|line| line + "\n"));
        told
    }

    /// What brokers say of transactions that they ended without all of their markers.
    pub fn forgotten(&self) -> Vec<String> {
        let mut forgotten = Vec::new();
        for part in (1..=i32::from(self.size.brokers)).map(broker) {
            let log = fs::read(self.log(&part)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines = log.lines().filter(|line| line.contains(FORGOTTEN));
            forgotten.extend(lines.map(|line| format!("{part}: {line}")));
        }
        forgotten
    }

    fn log(&self, part: &str) -> PathBuf {
        self.dir.path().join("logs").join(format!("{part}.log"))
    }

    /// Process id of a part: [`Size::parts`].
    pub fn pid(&self, part: &str) -> Result<Pid> {
        let file = self.dir.path().join("pids").join(format!("{part}.pid"));
        let text = fs::read_to_string(&file).with_context(|| format!("{part} has no process"))?;
        text.trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{text:?} is no process id"))
    }

    /// Waits until `up` has seen a part serve since it was last started, and gives its process id. `up` gives up on a
    /// part that dies again and again without that.
    pub async fn serving(&self, part: &str) -> Result<Pid> {
        poll::until(&format!("{part} to serve"), START_LIMIT, async || {
            let Ok(pid) = self.pid(part) else {
                return Ok(Err("no process".to_owned()));
            };
            let told = fs::read_to_string(self.dir.path().join("up.log"))?;
            let again = told.contains(&format!("{part} serves again (pid {})", pid.as_raw_nonzero()));
            Ok(if again || self.first.contains(&pid) {
                Ok(pid)
            } else {
                Err(format!("{pid:?} does not serve"))
            })
        })
        .await
    }

    /// Sends a signal to a part, once it serves, and waits until the process is gone. `up` starts another one.
    pub async fn kill(&self, part: &str, signal: Signal) -> Result<()> {
        let pid = self.serving(part).await?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {part}"))?;
        poll::until(&format!("{part} to end"), STOP_LIMIT, async || {
            let now = self.pid(part);
            Ok(if now.is_ok_and(|now| now == pid) {
                Err(pid)
            } else {
                Ok(())
            })
        })
        .await
    }

    /// Stops everything with SIGTERM; fails if `up` fails or a process is left.
    pub async fn down(self) -> Result<TempDir> {
        let Self { mut up, dir, size, .. } = self;
        let parts = size.parts();
        let file = |part: &str| dir.path().join("pids").join(format!("{part}.pid"));
        let pids: Vec<Pid> = parts
            .iter()
            .filter_map(|part| {
                fs::read_to_string(file(part))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
                    .and_then(Pid::from_raw)
            })
            .collect();
        let pid = up
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .context("up has ended by itself")?;
        kill_process(pid, Signal::TERM)?;
        let status = timeout(STOP_LIMIT, up.wait()).await.context("up did not stop")??;
        ensure!(status.success(), "up stopped with {status}");
        ensure!(pids.len() == parts.len(), "a part was not running when it was stopped");
        let left: Vec<_> = pids.into_iter().filter(|pid| test_kill_process(*pid).is_ok()).collect();
        ensure!(left.is_empty(), "processes are left: {left:?}");
        Ok(dir)
    }

    /// Stops everything and starts it again on the same directory.
    pub async fn restart(self) -> Result<Self> {
        self.restart_after(async |_| Ok(())).await
    }

    /// As [`Stack::restart`], with these variables instead of those that it was started with.
    pub async fn restart_with(mut self, environment: Vec<(String, String)>) -> Result<Self> {
        self.environment = environment;
        self.restart().await
    }

    /// As [`Stack::restart`]; between the two the directory is nobody's.
    pub async fn restart_after(mut self, between: impl AsyncFnOnce(&Path) -> Result<()>) -> Result<Self> {
        let (millrace, size, environment) = (self.millrace.clone(), self.size, self.environment.clone());
        let traces = self.traces.take();
        let dir = self.down().await?;
        between(dir.path()).await?;
        let mut stack = Self::start(&millrace, dir, size, environment, |_| ()).await?;
        stack.traces = traces;
        Ok(stack)
    }
}

/// Where the parts of a stack will listen, once `up` has chosen it.
async fn chosen_in(dir: &Path) -> Result<Addresses> {
    #[derive(Deserialize)]
    struct Chosen {
        addresses: Addresses,
    }
    let file = dir.join("stack.json");
    let chosen = poll::until("the stack's addresses", START_LIMIT, async || {
        Ok(fs::read_to_string(&file).map_err(|error| error.to_string()))
    });
    Ok(serde_json::from_str::<Chosen>(&chosen.await?)?.addresses)
}
