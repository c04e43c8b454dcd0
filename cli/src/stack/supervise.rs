//! Keeping a part alive: started again with a growing delay when it dies, given up when it dies too often.

use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::probe::Probe;
use super::process::{Process, Program, describe};
use crate::output::Progress;

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after this delay.
    Restart(Duration),
    /// Nothing is won by another start.
    GiveUp,
}

/// The deaths of a part since it last said SERVING.
///
/// | deaths within a minute, none SERVING in between | then |
/// |---|---|
/// | 1, 2, 3, 4 | start again after 0.2, 0.4, 0.8, 1.6 s |
/// | 5 | give up |
#[derive(Debug, Default)]
pub struct Deaths {
    recent: VecDeque<Instant>,
}

impl Deaths {
    const LIMIT: usize = 5;
    const WITHIN: Duration = Duration::from_secs(60);
    const FIRST_DELAY: Duration = Duration::from_millis(200);

    /// It has said SERVING: what was before does not count.
    pub fn serving(&mut self) {
        self.recent.clear();
    }

    /// It has died.
    pub fn died(&mut self, now: Instant) -> Verdict {
        self.recent.retain(|at| now.duration_since(*at) < Self::WITHIN);
        self.recent.push_back(now);
        let count = self.recent.len();
        if count >= Self::LIMIT {
            return Verdict::GiveUp;
        }
        Verdict::Restart(Self::FIRST_DELAY * (1 << (count - 1)))
    }
}

/// What a part is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    /// Started, or about to be.
    Starting,
    /// It answers.
    Serving,
    /// It is dead and stays so.
    Dead,
}

/// A part under supervision.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: String,
    state: watch::Receiver<PartState>,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

/// How parts are watched.
#[derive(Debug, Clone)]
pub struct Supervision {
    /// Whether a dead part is started again.
    pub restart: bool,
    /// Where the reason goes when a part is given up.
    pub failed: mpsc::Sender<anyhow::Error>,
    /// Where deaths and restarts are told.
    pub progress: Progress,
}

impl Part {
    /// Starts a part and watches it until it is stopped.
    pub fn start(program: Program, probe: Probe, supervision: Supervision) -> Self {
        let (states, state) = watch::channel(PartState::Starting);
        let stop = CancellationToken::new();
        let name = program.name.clone();
        let watcher = Watcher {
            program,
            probe,
            supervision,
            states,
            stop: stop.clone(),
        };
        Self {
            name,
            state,
            stop,
            task: tokio::spawn(watcher.run()),
        }
    }

    /// Waits until it answers. Never returns for a part that is given up: its reason goes where failures go.
    pub async fn serving(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|s| *s == PartState::Serving).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await?
    }
}

struct Watcher {
    program: Program,
    probe: Probe,
    supervision: Supervision,
    states: watch::Sender<PartState>,
    stop: CancellationToken,
}

impl Watcher {
    async fn run(self) -> Result<()> {
        let outcome = self.watch().await;
        if let Err(reason) = &outcome {
            // A full channel means that somebody else failed first: one reason is enough to stop the stack.
            let _ = self.supervision.failed.try_send(anyhow!("{reason:#}"));
        }
        self.states.send_replace(PartState::Dead);
        // The reason has been told; the stop that follows is clean.
        Ok(())
    }

    async fn watch(&self) -> Result<()> {
        let name = &self.program.name;
        let mut deaths = Deaths::default();
        let mut restarts = 0_u32;
        loop {
            self.states.send_replace(PartState::Starting);
            let mut process = self.program.spawn()?;
            let end = self.follow(&mut process, &mut deaths, restarts).await?;
            let Some(end) = end else {
                if !process.stop().await? {
                    self.supervision
                        .progress
                        .line(format!("{name} did not end in time and was killed"));
                }
                return Ok(());
            };
            drop(process);
            let served = *self.states.borrow() == PartState::Serving;
            let verdict = deaths.died(Instant::now());
            let delay = match verdict {
                Verdict::Restart(delay) if self.supervision.restart && end != BAD_CONFIG => delay,
                _ if !self.supervision.restart && served => {
                    self.supervision
                        .progress
                        .line(format!("{name} died ({end}) and is left so"));
                    return Ok(());
                }
                _ => return Err(self.given_up(&end, verdict)),
            };
            self.supervision
                .progress
                .line(format!("{name} died ({end}), starting it again"));
            restarts += 1;
            tokio::select! {
                () = sleep(delay) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// How the process ended; none if it is to be stopped.
    async fn follow(&self, process: &mut Process, deaths: &mut Deaths, restarts: u32) -> Result<Option<String>> {
        let answers = self.probe.until_serving();
        tokio::pin!(answers);
        loop {
            let serving = *self.states.borrow() == PartState::Serving;
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                status = process.ended() => return Ok(Some(describe(status?))),
                () = answers.as_mut(), if !serving => {
                    deaths.serving();
                    if restarts > 0 {
                        self.supervision.progress.line(format!("{} serves again (pid {})", self.program.name, process.id()));
                    }
                    self.states.send_replace(PartState::Serving);
                }
            }
        }
    }

    fn given_up(&self, end: &str, verdict: Verdict) -> anyhow::Error {
        let name = &self.program.name;
        let often = match verdict {
            Verdict::GiveUp => format!("{name} died {} times within a minute without serving", Deaths::LIMIT),
            Verdict::Restart(_) => format!("{name} died before it served"),
        };
        let log = self.program.layout.log(name);
        anyhow!(
            "{often}, at last with {end}; the end of {}:\n{}",
            log.display(),
            tail(&log, 20)
        )
    }
}

/// A service that refuses its own config will refuse it again.
const BAD_CONFIG: &str = "exit code 64";

/// The last lines of a file.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Waits for a future while something is shown at intervals.
pub async fn with_ticks<F: Future>(future: F, every: Duration, mut tick: impl AsyncFnMut()) -> F::Output {
    tokio::pin!(future);
    let mut interval = tokio::time::interval(every);
    interval.tick().await;
    loop {
        tokio::select! {
            output = future.as_mut() => return output,
            _ = interval.tick() => tick().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_deaths_within_a_minute_end_it() {
        let mut deaths = Deaths::default();
        let start = Instant::now();
        for delay in [200, 400, 800, 1600] {
            assert_eq!(deaths.died(start), Verdict::Restart(Duration::from_millis(delay)));
        }
        assert_eq!(deaths.died(start + Duration::from_secs(59)), Verdict::GiveUp);
    }

    #[test]
    fn serving_in_between_or_a_minute_forgives() {
        let start = Instant::now();
        let mut deaths = Deaths::default();
        for _ in 0..20 {
            assert_eq!(deaths.died(start), Verdict::Restart(Deaths::FIRST_DELAY));
            deaths.serving();
        }
        for seconds in (0..300).step_by(16) {
            assert_ne!(deaths.died(start + Duration::from_secs(seconds)), Verdict::GiveUp);
        }
    }

    #[test]
    fn the_tail_is_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a\nb\nc\n").unwrap();
        assert_eq!(tail(file.path(), 2), "  b\n  c");
    }
}
