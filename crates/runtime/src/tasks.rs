//! The tasks of a process: named, joined, stopped together within a bound.
//!
//! | a task | before the shutdown | after it |
//! |---|---|---|
//! | returns an error | the shutdown begins; the process ends with this error | the process ends with this error |
//! | panics | as an error | as an error |
//! | of [`Tasks::spawn`] returns Ok | as an error: it ended too early | has stopped |
//! | of [`Tasks::spawn_once`] returns Ok | has done its work | has stopped |
//! | does not return within the bound | | is cut off and named |

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use millrace_rpc::error::chain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long tasks may take to stop, unless said otherwise. Longer than a stage's drain and a server's together.
pub const SHUTDOWN_BOUND: Duration = Duration::from_secs(45);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a process ended.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task returned an error.
    #[error("task {task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// Its error.
        source: BoxError,
    },
    /// A task panicked; the log says where.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Its name.
        task: &'static str,
        /// What it said.
        message: String,
    },
    /// A task that runs as long as the process returned before it.
    #[error("task {task} ended before the process was asked to stop")]
    EndedEarly {
        /// Its name.
        task: &'static str,
    },
    /// Tasks did not stop within the bound, and were cut off.
    #[error("not stopped within {bound:?} and cut off: {}", tasks.join(", "))]
    Stuck {
        /// Their names.
        tasks: Vec<&'static str>,
        /// The bound.
        bound: Duration,
    },
    /// Asked to stop a second time: tasks were cut off.
    #[error("cut off by a second signal: {}", tasks.join(", "))]
    CutOff {
        /// Their names.
        tasks: Vec<&'static str>,
    },
    /// The signals of the process cannot be read.
    #[error("cannot listen for SIGTERM and SIGINT")]
    Signals(#[source] std::io::Error),
}

impl TaskError {
    /// The error of the task that failed, for a program that maps kinds of errors to exit codes.
    pub fn cause<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Failed { source, .. } => source.downcast_ref(),
            _ => None,
        }
    }
}

/// The tasks of a process. SIGTERM and SIGINT are listened for from its making on.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<Result<(), BoxError>>,
    named: HashMap<Id, Named>,
    shutdown: CancellationToken,
    signals: Signals,
    bound: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Named {
    task: &'static str,
    may_end: bool,
}

impl Tasks {
    /// No tasks yet. Called within a tokio runtime.
    pub fn new() -> Result<Self, TaskError> {
        Ok(Self {
            running: JoinSet::new(),
            named: HashMap::new(),
            shutdown: CancellationToken::new(),
            signals: Signals::listen().map_err(TaskError::Signals)?,
            bound: SHUTDOWN_BOUND,
        })
    }

    /// Bounds the time that tasks may take to stop.
    #[must_use]
    pub fn with_bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Is cancelled when the process is to stop. Every task ends soon after.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a task that runs until the shutdown.
    pub fn spawn<E>(&mut self, task: &'static str, future: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<BoxError>,
    {
        self.start(Named { task, may_end: false }, future);
    }

    /// Starts a task that may be done before the shutdown.
    pub fn spawn_once<E>(&mut self, task: &'static str, future: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<BoxError>,
    {
        self.start(Named { task, may_end: true }, future);
    }

    fn start<E>(&mut self, named: Named, future: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<BoxError>,
    {
        let handle = self.running.spawn(async { future.await.map_err(Into::into) });
        self.named.insert(handle.id(), named);
    }

    /// A step of the start, which a signal or a failing task cuts short: none if the process is to stop instead.
    /// Call [`Self::run_until_signal`] then; it stops what was started and returns why.
    pub async fn unless_stopped<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            signal = self.signals.next() => {
                tracing::info!(signal, "stopping while starting");
                self.shutdown.cancel();
                None
            }
            value = step => Some(value),
        }
    }

    /// Waits for SIGTERM, SIGINT, a cancelled token or the first task that fails; then stops all tasks within the bound.
    pub async fn run_until_signal(mut self) -> Result<(), TaskError> {
        let mut outcome = self.until_asked().await;
        self.shutdown.cancel();
        let deadline = tokio::time::sleep(self.bound);
        tokio::pin!(deadline);
        while !self.running.is_empty() {
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next_with_id() => {
                    let ended = self.ended(ended, true);
                    outcome = outcome.and(ended);
                }
                signal = self.signals.next() => {
                    tracing::warn!(signal, "asked a second time, cutting off");
                    let tasks = self.cut_off().await;
                    return outcome.and(Err(TaskError::CutOff { tasks }));
                }
                () = &mut deadline => {
                    let tasks = self.cut_off().await;
                    return outcome.and(Err(TaskError::Stuck { tasks, bound: self.bound }));
                }
            }
        }
        outcome
    }

    async fn until_asked(&mut self) -> Result<(), TaskError> {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                Some(ended) = self.running.join_next_with_id() => self.ended(ended, false)?,
                signal = self.signals.next() => {
                    tracing::info!(signal, "stopping");
                    return Ok(());
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, Result<(), BoxError>), JoinError>, stopping: bool) -> Result<(), TaskError> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(join) => (join.id(), Err(join)),
        };
        // Every task is named when it is started; the fallback only keeps this total.
        let Named { task, may_end } = self.named.remove(&id).unwrap_or(Named {
            task: "unnamed",
            may_end: false,
        });
        let error = match result {
            Ok(Ok(())) if stopping || may_end => {
                tracing::debug!(task, "task ended");
                return Ok(());
            }
            Ok(Ok(())) => TaskError::EndedEarly { task },
            Ok(Err(source)) => TaskError::Failed { task, source },
            Err(join) => TaskError::Panicked {
                task,
                message: panic_message(join),
            },
        };
        tracing::error!(task, error = chain(&error), "task failed");
        Err(error)
    }

    async fn cut_off(&mut self) -> Vec<&'static str> {
        let mut tasks: Vec<_> = self.named.values().map(|n| n.task).collect();
        tasks.sort_unstable();
        tracing::error!(?tasks, "tasks cut off");
        // Not waited for: a task that blocks its thread would hold the process up just as before.
        self.running.abort_all();
        tasks
    }
}

fn panic_message(join: JoinError) -> String {
    match join.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload
                .downcast_ref::<&str>()
                .map_or_else(|| "no message".to_owned(), |t| (*t).to_owned()),
        },
        Err(cancelled) => cancelled.to_string(),
    }
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
