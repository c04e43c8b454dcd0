//! A stage in a process of its own: this test's binary, told to be one.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millrace_testkit::poll;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::stage::{Picture, SPEC, Spec};

/// Longest wait for a member to get its partitions: a session of 30 s that must end first, and some.
const ASSIGNED_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for a process that was told to end.
const ENDED_WITHIN: Duration = Duration::from_secs(45);

/// A running stage. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    instance: String,
    picture: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts one; what it says goes to a file beside its picture.
    pub fn start(spec: &Spec) -> Result<Self> {
        let log = spec.picture.with_extension("log");
        let out = fs::File::create_new(&log)?;
        let child = Command::new(std::env::current_exe()?)
            .env(SPEC, serde_json::to_string(spec)?)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a stage")?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self {
            child,
            pid: pid.context("the stage ended at once")?,
            instance: spec.instance.clone(),
            picture: spec.picture.clone(),
            log,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its name in the group.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Its newest picture; nothing before the first.
    pub fn picture(&self) -> Picture {
        let bytes = fs::read(&self.picture).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// What it has said.
    pub fn told(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Waits until its picture is as wanted; fails at once if the process ends.
    pub async fn until(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Picture) -> bool) -> Result<Picture> {
        poll::until(&format!("{} {what}", self.instance), limit, async || {
            let picture = self.picture();
            if wanted(&picture) {
                return Ok(Ok(picture));
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} has ended with {status}, after {picture:?}", self.instance);
            }
            Ok(Err(picture))
        })
        .await
    }

    /// Waits until it holds so many partitions.
    pub async fn holds(&mut self, partitions: usize) -> Result<Picture> {
        let what = format!("to hold {partitions} partitions");
        self.until(&what, ASSIGNED_WITHIN, |seen| seen.partitions.len() == partitions)
            .await
    }

    /// Waits until it has committed so many records more than it has now.
    pub async fn processes(&mut self, more: u64) -> Result<Picture> {
        let wanted = self.picture().processed + more;
        let what = format!("to have committed {wanted} records");
        self.until(&what, ASSIGNED_WITHIN, |seen| seen.processed >= wanted)
            .await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.instance))
    }

    /// It has not ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} has ended with {ended:?}", self.instance);
        Ok(())
    }

    /// Waits for its end, however long.
    pub async fn end(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Waits for its end, which must be near.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = timeout(ENDED_WITHIN, self.end()).await;
        ended.with_context(|| format!("{} does not end; last seen: {:?}", self.instance, self.picture()))?
    }

    /// Asks it to leave, and waits until it has, cleanly.
    pub async fn leave(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended().await?;
        ensure!(
            status.success(),
            "{} was asked to leave and ended with {status}",
            self.instance
        );
        Ok(())
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let status = self.ended().await?;
        ensure!(
            status.signal() == Some(Signal::KILL.as_raw()),
            "it ended with {status} before it was killed"
        );
        Ok(())
    }
}
