//! A stage over Kafka: sessions of one consumer and one transactional producer, replaced when they cannot go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::config::{self, ConfigError, KafkaConfig};
use crate::joining::JoinPatience;
use crate::member::{Context, Member};
use crate::reports::{self, Reports, TransactionalProducer};
use crate::{consumer, partitioner, stalled, transactor};
use millrace_failpoints::points;
use millrace_flow::fair::Sharing;
use millrace_flow::log::{Event, Link};
use millrace_flow::progress::{ProgressReader, StageProgress};
use millrace_flow::runner::{self, Ended, Limits, Marks};
use millrace_flow::{DeadLetters, Delivery, Failure, Outputs};

/// Events between the consumer thread and the runner, batches of records among them; the window bounds what is behind.
const EVENTS: usize = 4;
/// For a producer to end its transaction, once the runner has hung up.
const PRODUCER_END: Duration = Duration::from_secs(5);
/// For a consumer to close.
const CONSUMER_END: Duration = Duration::from_secs(15);
/// Between the end of a session and the next.
const PAUSE: Duration = Duration::from_secs(1);

/// What a stage reads, as whom.
#[derive(Debug, Clone)]
pub struct StageConfig {
    /// For people and metrics: `parse`, `embed`, `index`.
    pub name: &'static str,
    /// Consumer group.
    pub group: String,
    /// Stable name of this process: static member of the group, and with the group the transactional id.
    pub instance: String,
    /// Topics to read.
    pub topics: Vec<String>,
    /// Bounds.
    pub limits: Limits,
    /// Who shares it.
    pub sharing: Sharing,
}

/// Why a stage ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Kafka's settings are not usable.
    #[error("the {stage} stage cannot start")]
    Config {
        /// The stage.
        stage: &'static str,
        /// What is wrong.
        source: ConfigError,
    },
    /// Another process took over.
    #[error("the {stage} stage was fenced: {reason}; give every process an instance name of its own")]
    Fenced {
        /// The stage.
        stage: &'static str,
        /// By whom.
        reason: String,
    },
    /// The operating system gave no thread.
    #[error("the {stage} stage cannot start a thread")]
    Thread {
        /// The stage.
        stage: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a stage does.
#[derive(Clone)]
pub struct StageWork<S> {
    /// The function of one record.
    pub service: S,
    /// Makes the dead letters of records that are given up.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Is told whether calls may be made, for layers of the service's own.
    pub gate: watch::Sender<bool>,
    /// Whether nothing more is to start.
    pub hold: watch::Receiver<bool>,
}

impl<S> StageWork<S> {
    /// Of a service that does not ask the gate, and that nobody holds.
    pub fn new(service: S, dead_letters: Arc<dyn DeadLetters>) -> Self {
        Self {
            service,
            dead_letters,
            gate: watch::Sender::new(true),
            hold: watch::channel(false).1,
        }
    }
}

/// A stage that is ready to run.
pub struct StageTask<S> {
    kafka: KafkaConfig,
    config: StageConfig,
    stage: runner::Stage<S>,
}

/// Puts a stage together; [`StageTask::run`] runs it.
pub fn stage<S>(kafka: &KafkaConfig, config: StageConfig, work: StageWork<S>) -> (StageTask<S>, ProgressReader) {
    let (progress, reader) = watch::channel(StageProgress {
        name: config.name.to_owned(),
        consumer_group: config.group.clone(),
        reason: "connecting to Kafka".into(),
        ..StageProgress::default()
    });
    let stage = runner::Stage {
        service: work.service,
        dead_letters: work.dead_letters,
        limits: config.limits,
        sharing: config.sharing.clone(),
        progress,
        gate: work.gate,
        hold: work.hold,
    };
    let task = StageTask {
        kafka: kafka.clone(),
        config,
        stage,
    };
    (task, reader)
}

impl<S> StageTask<S>
where
    S: Service<Delivery, Response = Outputs, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Runs until asked to leave, and then until the drain is over. An outage of Kafka is waited for.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StageError> {
        let stage = self.config.name;
        let mut marks = Marks::default();
        let (watch, patience) = (stalled::Watch::default(), JoinPatience::default());
        while !shutdown.is_cancelled() {
            let Some(session) = Session::open(&self.kafka, &self.config, &watch, &patience, &shutdown).await? else {
                continue;
            };
            let Session { link, threads } = session;
            let ended;
            (ended, marks) = runner::run(self.stage.clone(), link, marks, shutdown.clone()).await;
            if matches!(ended, Ended::Drained) {
                points::DRAINED.reached();
            }
            let producer_end = match ended {
                Ended::Unanswered(_) => Duration::ZERO,
                _ => PRODUCER_END,
            };
            threads.close(stage, producer_end).await;
            match ended {
                Ended::Drained => break,
                Ended::Fenced(reason) => return Err(StageError::Fenced { stage, reason }),
                Ended::Restart(reason) | Ended::Unanswered(reason) => {
                    tracing::warn!(
                        stage,
                        reason,
                        "the session ended; a new one starts from committed positions"
                    );
                    let starting = || millrace_flow::progress::StageState::Starting;
                    self.stage.progress.send_modify(|progress| {
                        progress.state = starting();
                        progress.partitions.clear();
                        progress.reason = format!("starting again: {reason}");
                    });
                    shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
        tracing::info!(stage, "the stage has left");
        Ok(())
    }
}

/// One consumer, one producer, and the threads that own them.
struct Session {
    link: Link,
    threads: Threads,
}

struct Threads {
    closing: Arc<AtomicBool>,
    consumer: JoinHandle<()>,
    producer: JoinHandle<()>,
}

impl Session {
    /// None when the producer could not be made ready: to be tried again.
    async fn open(
        kafka: &KafkaConfig,
        config: &StageConfig,
        watch: &stalled::Watch,
        patience: &JoinPatience,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, StageError> {
        let stage = config.name;
        let config_error = |source| StageError::Config { stage, source };
        let client_error = |error| config_error(ConfigError::Client(error));
        let transactional_id = format!("{}.{}", config.group, config.instance);
        let producer: TransactionalProducer = kafka
            .transactional_producer(&transactional_id)
            .map_err(config_error)?
            .create_with_context(Reports::default())
            .map_err(client_error)?;
        let producer = Arc::new(producer);
        let thread_error = |source| StageError::Thread { stage, source };
        reports::serve(&producer, stage).map_err(thread_error)?;
        // Without a broker this waits as long as it takes. On a plain thread: the process can end without it.
        let (ready, initialised) = oneshot::channel();
        let (waiting, leaving) = (producer.clone(), shutdown.clone());
        std::thread::Builder::new()
            .name(format!("{stage}-init"))
            .spawn(move || ready.send(transactor::init(&waiting, &leaving)))
            .map_err(thread_error)?;
        match shutdown.run_until_cancelled(initialised).await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                tracing::warn!(stage, %error, "the transactional producer could not be made ready");
                shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                return Ok(None);
            }
            Some(Err(_)) | None => return Ok(None),
        }

        let (events_sender, events) = mpsc::channel::<Event>(EVENTS);
        let (commits, mut commits_receiver) = mpsc::channel(1);
        let (paused, paused_receiver) = watch::channel(BTreeSet::new());
        let name = member_name(&config.instance, &config.topics);
        let settings = kafka.member(&config.group, &name).map_err(config_error)?;
        let session = config::session(&settings);
        let joining = patience.begin(session, config::poll_interval(&settings));
        let context = Context::new(config.group.clone(), joining, events_sender);
        let assignment = context.assignment.clone();
        let seen = context.seen.clone();
        let member: Member = settings.create_with_context(context).map_err(client_error)?;
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        member.subscribe(&topics).map_err(client_error)?;
        let asker = kafka
            .reader(&format!("{}.{name}.watch", config.group))
            .map_err(config_error)?;
        let watching = watch.begin(&asker, seen).map_err(client_error)?;
        let member = Arc::new(member);
        let closing = Arc::new(AtomicBool::new(false));

        let thread = |role: &str| std::thread::Builder::new().name(format!("{stage}-{role}"));
        let (watched, close) = (Arc::downgrade(&member), closing.clone());
        let name = consumer::Name {
            group: config.group.clone(),
            instance: name,
            session,
        };
        let consumer = thread("consumer")
            .spawn(move || {
                consumer::poll(&member, &name, paused_receiver, &close, &watching);
                // Closes the consumer, which takes its time.
                drop(member);
            })
            .map_err(thread_error)?;
        let group = config.group.clone();
        let producer = thread("producer")
            .spawn(move || transactor::run(&producer, &group, &watched, &assignment, &mut commits_receiver))
            .map_err(thread_error)?;
        Ok(Some(Self {
            link: Link {
                events,
                commits,
                paused,
            },
            threads: Threads {
                closing,
                consumer,
                producer,
            },
        }))
    }
}

/// The static member's name: the instance's, and of one that reads several topics also which.
///
/// Kafka gives a static member that comes back within its session what it had, whatever it subscribes to now: a topic that was
/// added would be read by nobody. So one that reads others is another member, and its join begins a rebalance; what the earlier
/// one had waits until its session is over.
fn member_name(instance: &str, topics: &[String]) -> String {
    if topics.len() < 2 {
        return instance.to_owned();
    }
    let mut topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    topics.sort_unstable();
    format!("{instance}.{:08x}", partitioner::murmur2(topics.join(",").as_bytes()))
}

impl Threads {
    /// Waits for both threads, within a bound. The runner has hung up, so the producer ends with its current
    /// transaction; one that never comes back is left behind, and fenced by the next session.
    async fn close(self, stage: &'static str, producer_end: Duration) {
        let ended = tokio::task::spawn_blocking(move || {
            let producer = ended_within(self.producer, producer_end);
            self.closing.store(true, Ordering::SeqCst);
            (producer, ended_within(self.consumer, CONSUMER_END))
        });
        match ended.await {
            Ok((true, true)) => {}
            other => tracing::error!(stage, ?other, "a Kafka thread did not end in time and is left behind"),
        }
    }
}

/// Joins a thread that ends within `bound`; false if it does not, or has panicked.
fn ended_within(thread: JoinHandle<()>, bound: Duration) -> bool {
    let until = Instant::now() + bound;
    while !thread.is_finished() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.join().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_that_stays_is_left_behind() {
        let (go, wait) = mpsc::channel::<()>();
        let stays = std::thread::spawn(move || assert!(wait.recv().is_err()));
        assert!(!ended_within(stays, Duration::from_millis(20)));
        drop(go);
        assert!(ended_within(std::thread::spawn(|| {}), Duration::from_secs(10)));
        assert!(!ended_within(
            std::thread::spawn(|| panic!("on purpose")),
            Duration::from_secs(10)
        ));
    }
}
