//! A stage that copies its input to its output. A record's value says what happens to it.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace_flow::fair::Sharing;
use millrace_flow::progress::{PartitionState, ProgressReader, StageProgress, StageState};
use millrace_flow::runner::Limits;
use millrace_flow::{DeadLetters, Delivery, Failure, Headers, Output, Outputs, Rejection};
use millrace_kafka::{KafkaConfig, StageConfig, StageError, StageWork};
use millrace_runtime::clock::now_ms;
use millrace_runtime::telemetry;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Set for a process that is to be a stage: its [`Spec`], as JSON.
pub const SPEC: &str = "MILLRACE_E2E_STAGE";
/// Another process with the same instance name took over.
pub const FENCED: u8 = 78;

/// Where the input record stood, `partition/offset`.
pub const ORIGIN: &str = "origin";
/// Which attempt made the output.
pub const ATTEMPT: &str = "attempt";
/// Milliseconds from the last answer of RATE_LIMITED in this process to the call that made the output.
pub const SINCE_LIMITED: &str = "since-limited";
/// Why a dead letter is one: the class and the code of its last failure.
pub const CLASS: &str = "failure_class";
pub const REASON: &str = "failure_reason";
/// How often a dead letter was tried.
pub const ATTEMPTS: &str = "failure_attempts";

/// How often a record that waits for a signal looks for it.
const LOOK: Duration = Duration::from_millis(20);

/// What a stage's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// How to reach the broker.
    pub kafka: KafkaConfig,
    /// Consumer group.
    pub group: String,
    /// Name of this process in the group.
    pub instance: String,
    /// Topic that it reads.
    pub input: String,
    /// Topic that it copies to.
    pub output: String,
    /// Topic for what is given up.
    pub dead_letters: String,
    /// Folder of signals: files that records wait for.
    pub signals: PathBuf,
    /// File that the newest picture of the stage is kept in.
    pub picture: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

/// The newest picture of a stage, as its process keeps it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Picture {
    /// STARTING, RUNNING, DRAINING or STOPPED, with the reason.
    pub state: String,
    pub reason: String,
    /// How often the stage had to start again in this process.
    pub restarts: u32,
    pub processed: u64,
    pub failed: u64,
    /// Records received and not finished.
    pub window: u64,
    pub partitions: Vec<Held>,
    /// Class and code of the last failures, newest last.
    pub failures: Vec<(String, String)>,
}

/// An assigned partition in a [`Picture`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    pub partition: i32,
    pub position: i64,
    pub lag: Option<i64>,
    pub stopped: bool,
    /// Why it is not running freely.
    pub reason: String,
}

impl Picture {
    fn of(progress: &StageProgress, restarts: u32) -> Self {
        let held = |p: &millrace_flow::progress::PartitionProgress| Held {
            partition: p.partition,
            position: p.position,
            lag: p.lag_records,
            stopped: p.state == PartitionState::Stopped,
            reason: p.reason.clone(),
        };
        let failures = progress.last_failures.iter();
        Self {
            state: format!("{:?}", progress.state).to_uppercase(),
            reason: progress.reason.clone(),
            restarts,
            processed: progress.processed,
            failed: progress.failed,
            window: progress.window_records,
            partitions: progress.partitions.iter().map(held).collect(),
            failures: failures.map(|f| (f.class.to_owned(), f.reason.clone())).collect(),
        }
    }
}

/// What a record's value asks for, after the colon with a number or a name. What stands behind a further colon is ballast.
///
/// | value | what happens |
/// |---|---|
/// | `ok` | copied at once |
/// | `sleep:MS` | copied after that time |
/// | `until:NAME` | copied when the case gives that signal; never, if it does not |
/// | `huge:BYTES` | the output has this size, and cannot be compressed |
/// | `abort` | the process dies |
/// | `invalid`, `config` | that failure, always |
/// | `failed:N` | FAILED in the first N attempts, then copied |
/// | `transient:MS` | TRANSIENT until the record is this old, then copied |
/// | `limited:MS:RETRY` | RATE_LIMITED with this retry delay until the record is this old, then copied |
#[derive(Debug, Clone, PartialEq, Eq)]
enum Script {
    Ok,
    Sleep(Duration),
    Until(String),
    Huge(usize),
    Abort,
    Invalid,
    Config,
    Failed(u32),
    Transient(Duration),
    Limited(Duration, Duration),
}

impl Script {
    fn parse(value: &str) -> Result<Self> {
        let mut words = value.split(':');
        let mut next = || words.next().context("a word is missing");
        let millis = |word: &str| anyhow::Ok(Duration::from_millis(word.parse()?));
        Ok(match next()? {
            "ok" => Self::Ok,
            "sleep" => Self::Sleep(millis(next()?)?),
            "until" => Self::Until(next()?.to_owned()),
            "huge" => Self::Huge(next()?.parse()?),
            "abort" => Self::Abort,
            "invalid" => Self::Invalid,
            "config" => Self::Config,
            "failed" => Self::Failed(next()?.parse()?),
            "transient" => Self::Transient(millis(next()?)?),
            "limited" => Self::Limited(millis(next()?)?, millis(next()?)?),
            other => bail!("{other:?} is no script"),
        })
    }
}

/// The service of the stage.
#[derive(Debug, Clone)]
struct Copy {
    output: Arc<str>,
    signals: Arc<Path>,
    /// When RATE_LIMITED was answered last, milliseconds since 1970; 0 for never.
    limited_at: Arc<AtomicI64>,
}

impl Service<Delivery> for Copy {
    type Response = Outputs;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Outputs, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let copy = self.clone();
        Box::pin(async move { copy.process(delivery).await })
    }
}

impl Copy {
    async fn process(&self, delivery: Delivery) -> Result<Outputs, Failure> {
        let began = now_ms();
        let limited_at = self.limited_at.load(Ordering::SeqCst);
        let value = String::from_utf8_lossy(delivery.value.as_deref().unwrap_or_default()).into_owned();
        let message = value.clone();
        let age = Duration::from_millis(u64::try_from(began - delivery.timestamp_ms).unwrap_or(0));
        let script = Script::parse(&value).map_err(|error| Failure::Invalid {
            reason: "NO_SCRIPT",
            message: error.to_string(),
        })?;
        let mut copied = value.into_bytes();
        match script {
            Script::Ok => {}
            Script::Sleep(time) => tokio::time::sleep(time).await,
            Script::Until(name) => {
                while !self.signals.join(&name).exists() {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Script::Huge(bytes) => copied = (0..bytes).map(|_| rand::random()).collect(),
            Script::Abort => std::process::abort(),
            Script::Invalid => {
                return Err(Failure::Invalid {
                    reason: "SCRIPTED",
                    message,
                });
            }
            Script::Config => {
                return Err(Failure::Config {
                    reason: "SCRIPTED",
                    message,
                });
            }
            Script::Failed(times) if delivery.attempt <= times => {
                return Err(Failure::Failed {
                    reason: "SCRIPTED",
                    message,
                });
            }
            Script::Transient(until) if age < until => {
                return Err(Failure::Transient {
                    reason: "SCRIPTED",
                    message,
                });
            }
            Script::Limited(until, retry_after) if age < until => {
                self.limited_at.store(now_ms(), Ordering::SeqCst);
                return Err(Failure::RateLimited {
                    reason: "SCRIPTED",
                    message,
                    retry_after,
                });
            }
            Script::Failed(_) | Script::Transient(_) | Script::Limited(..) => {}
        }
        let mut headers = Headers::default();
        headers.push(ORIGIN, origin(&delivery));
        headers.push(ATTEMPT, delivery.attempt.to_string());
        if limited_at > 0 {
            headers.push(SINCE_LIMITED, (began - limited_at).to_string());
        }
        Ok(Outputs(vec![Output {
            topic: self.output.to_string(),
            partition: None,
            key: delivery.key.unwrap_or_default(),
            value: Some(copied.into()),
            headers,
        }]))
    }
}

fn origin(delivery: &Delivery) -> String {
    format!("{}/{}", delivery.origin.partition, delivery.origin.offset)
}

/// Buries what is given up in a topic: key, value and headers as they were, and why.
#[derive(Debug)]
struct Letters {
    topic: String,
}

impl DeadLetters for Letters {
    fn bury(&self, rejection: &Rejection) -> Outputs {
        let delivery = &rejection.delivery;
        let mut headers = delivery.headers.clone();
        headers.push(ORIGIN, origin(delivery));
        headers.push(CLASS, rejection.class);
        headers.push(REASON, rejection.reason.clone());
        headers.push(ATTEMPTS, rejection.attempts.to_string());
        Outputs(vec![Output {
            topic: self.topic.clone(),
            partition: None,
            key: delivery.key.clone().unwrap_or_default(),
            value: delivery.value.clone(),
            headers,
        }])
    }
}

/// What this process is, if it was started to be a stage: its exit code.
pub fn as_told() -> Option<ExitCode> {
    let spec = std::env::var(SPEC).ok()?;
    let code = match run_here(&spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            let fenced = matches!(error.downcast_ref(), Some(StageError::Fenced { .. }));
            if fenced { FENCED.into() } else { ExitCode::FAILURE }
        }
    };
    Some(code)
}

fn run_here(spec: &str) -> Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("cannot read the stage's spec")?;
    telemetry::log::init(&telemetry::Log::default())?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(spec))
}

async fn run(spec: Spec) -> Result<()> {
    let shutdown = CancellationToken::new();
    let mut asked = signal(SignalKind::terminate())?;
    let service = Copy {
        output: spec.output.as_str().into(),
        signals: spec.signals.into(),
        limited_at: Arc::default(),
    };
    let config = StageConfig {
        name: "copy",
        group: spec.group,
        instance: spec.instance,
        topics: vec![spec.input],
        limits: spec.limits,
        sharing: Sharing::default(),
    };
    let letters = Arc::new(Letters {
        topic: spec.dead_letters,
    });
    let (task, progress) = millrace_kafka::stage(&spec.kafka, config, StageWork::new(service, letters));
    let stop = async {
        asked.recv().await;
        shutdown.cancel();
        std::future::pending::<()>().await;
    };
    let ended = async { tokio::join!(task.run(shutdown.clone()), paint(progress, &spec.picture)) };
    tokio::select! {
        (ended, painted) = ended => {
            ended?;
            painted
        }
        () = stop => Ok(()),
    }
}

/// Keeps the newest picture in the file, until the stage is gone.
async fn paint(mut progress: ProgressReader, file: &Path) -> Result<()> {
    let (mut restarts, mut starting) = (0, false);
    let new = file.with_extension("new");
    loop {
        let picture = {
            let seen = progress.borrow_and_update();
            let again = seen.state == StageState::Starting && seen.reason.starts_with("starting again");
            restarts += u32::from(again && !starting);
            starting = again;
            Picture::of(&seen, restarts)
        };
        std::fs::write(&new, serde_json::to_vec(&picture)?)?;
        std::fs::rename(&new, file)?;
        if progress.changed().await.is_err() {
            return Ok(());
        }
    }
}
