//! The stages that are measured, and how one is run.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::{BoxFuture, Pending, pending};
use millrace_flow::fair::Sharing;
use millrace_flow::progress::ProgressReader;
use millrace_flow::runner::Limits;
use millrace_flow::{DeadLetters, Delivery, Failure, Headers, Output, Outputs, Rejection};
use millrace_kafka::yardstick::log::Committed;
use millrace_kafka::{KafkaConfig, StageConfig, StageError, StageWork};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::timer::Timer;
use super::workload::{ALONE, Workload, index_of};

/// Between two looks at what is committed. Parallel Consumer's bench asks every 20 ms.
const ASK: Duration = Duration::from_millis(5);
/// Longer than any bench takes to commit everything.
const LIMIT: Duration = Duration::from_secs(180);

type Answer = Result<Outputs, Failure>;

fn output(topic: &str, delivery: &Delivery, value: Bytes) -> Outputs {
    Outputs(vec![Output {
        topic: topic.to_owned(),
        partition: None,
        key: delivery.key.clone().unwrap_or_default(),
        value: Some(value),
        headers: Headers::default(),
    }])
}

/// A stage that does nothing: one output a record, at once.
#[derive(Debug, Clone)]
pub struct Echo {
    /// Topic to write to.
    pub topic: Arc<str>,
    /// What an output's value is; none for the input's own.
    pub text: Option<Text>,
    /// When the first record came.
    pub first: Arc<OnceLock<Instant>>,
}

/// Makes the value of an output: the record's number and something behind it.
#[derive(Debug, Clone)]
pub enum Text {
    /// So many bytes of prose.
    Prose(Bytes, usize),
    /// A mark.
    Mark(u32),
}

impl Text {
    /// The output's value for an input's.
    pub fn write(&self, input: &[u8]) -> Vec<u8> {
        let index = index_of(input).unwrap_or(u64::MAX);
        match self {
            Self::Prose(text, bytes) => Workload::value(text, index, *bytes),
            Self::Mark(mark) => format!("{index} {mark}").into_bytes(),
        }
    }
}

impl Service<Delivery> for Echo {
    type Response = Outputs;
    type Error = Failure;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        self.first.get_or_init(Instant::now);
        let input = delivery.value.clone().unwrap_or_default();
        let value = match &self.text {
            Some(text) => text.write(&input).into(),
            None => input,
        };
        ready(Ok(output(&self.topic, &delivery, value)))
    }
}

/// A stage whose records take a time.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// Topic to write to.
    pub topic: Arc<str>,
    /// Each record takes from 0 to this, evenly distributed.
    pub longest: Duration,
    /// Where it sleeps.
    pub timer: Timer,
    /// In every partition one record at a time that takes this long.
    pub slow: Option<(Duration, Arc<Slow>)>,
    /// When the first record came.
    pub first: Arc<OnceLock<Instant>>,
}

/// Whether a slow record is in flight, by partition.
#[derive(Debug)]
pub struct Slow(HashMap<i32, AtomicBool>);

impl Slow {
    /// None yet.
    pub fn none(partitions: i32) -> Self {
        Self((0..partitions).map(|p| (p, AtomicBool::new(false))).collect())
    }

    fn begin(&self, delivery: &Delivery) -> bool {
        let alone = delivery.key.as_ref().is_some_and(|key| key.starts_with(ALONE));
        let slow = self.0.get(&delivery.origin.partition);
        alone && slow.is_some_and(|slow| !slow.swap(true, Ordering::SeqCst))
    }

    fn end(&self, delivery: &Delivery) {
        if let Some(slow) = self.0.get(&delivery.origin.partition) {
            slow.store(false, Ordering::SeqCst);
        }
    }
}

/// Ends the value of an output of a slow record.
pub const SLOW: &[u8] = b" slow";

impl Service<Delivery> for Simulated {
    type Response = Outputs;
    type Error = Failure;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let stage = self.clone();
        Box::pin(async move {
            stage.first.get_or_init(Instant::now);
            let value = delivery.value.clone().unwrap_or_default();
            if let Some((time, slow)) = stage.slow.as_ref().filter(|(_, slow)| slow.begin(&delivery)) {
                tokio::time::sleep(*time).await;
                slow.end(&delivery);
                let index = index_of(&value).unwrap_or(u64::MAX);
                let value = [index.to_string().as_bytes(), SLOW].concat();
                return Ok(output(&stage.topic, &delivery, value.into()));
            }
            let work = stage
                .longest
                .mul_f64(uniform(delivery.origin.partition, delivery.origin.offset));
            if !work.is_zero() {
                stage.timer.sleep(work).await;
            }
            Ok(output(&stage.topic, &delivery, value))
        })
    }
}

/// From 0 to 1, fixed for each record: what Java's `SplittableRandom(offset * 31 + partition).nextDouble()` gives, by
/// which Parallel Consumer's bench sleeps.
pub fn uniform(partition: i32, offset: i64) -> f64 {
    let seed = (offset as u64).wrapping_mul(31).wrapping_add(partition as u64);
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A stage whose records never finish.
#[derive(Debug, Clone)]
pub struct Stalled;

impl Service<Delivery> for Stalled {
    type Response = Outputs;
    type Error = Failure;
    type Future = Pending<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Delivery) -> Self::Future {
        pending()
    }
}

/// What a stage of a bench reads, as whom.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Consumer group.
    pub group: String,
    /// Static member.
    pub instance: String,
    /// Topic to read.
    pub input: String,
    /// Bounds.
    pub limits: Limits,
}

/// A stage that runs in this process.
#[derive(Debug)]
pub struct Running {
    /// What it shows of itself.
    pub progress: ProgressReader,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), StageError>>,
}

/// A record that is given up leaves nothing: the outputs' verification finds that it is missing.
struct Nothing;

impl DeadLetters for Nothing {
    fn bury(&self, _: &Rejection) -> Outputs {
        Outputs::default()
    }
}

/// Runs a stage as a service runs its own.
pub fn start<S>(kafka: &KafkaConfig, setup: &Setup, service: S) -> Running
where
    S: Service<Delivery, Response = Outputs, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    let config = StageConfig {
        name: "bench",
        group: setup.group.clone(),
        instance: setup.instance.clone(),
        topics: vec![setup.input.clone()],
        limits: setup.limits,
        sharing: Sharing::default(),
    };
    let work = StageWork::new(service, Arc::new(Nothing));
    let (task, progress) = millrace_kafka::stage(kafka, config, work);
    let shutdown = CancellationToken::new();
    Running {
        progress,
        task: tokio::spawn(task.run(shutdown.clone())),
        shutdown,
    }
}

impl Running {
    /// Waits until it ends by itself, which it should not.
    pub async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow::anyhow!("the stage ended by itself"),
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        }
    }

    /// Waits until it has committed every partition of its topic up to its end; when that was seen. One that does not
    /// get there is an error, with what it shows of itself.
    pub async fn until_committed(&mut self, committed: Arc<Committed>, ends: Vec<i64>) -> Result<Instant> {
        let progress = self.progress.clone();
        tokio::select! {
            end = all_committed(committed, ends) => end.with_context(|| format!("{:?}", *progress.borrow())),
            error = self.ended() => Err(error),
        }
    }

    /// Lets it finish what runs, and waits for its end.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(self.task.await??)
    }
}

/// Waits until a group has committed every partition of a topic up to its end; when that was seen.
pub async fn all_committed(committed: Arc<Committed>, ends: Vec<i64>) -> Result<Instant> {
    let wait = move || {
        let until = Instant::now() + LIMIT;
        loop {
            let positions = committed.now();
            let now = Instant::now();
            let reached =
                |(end, at): (&i64, &Option<(i64, String)>)| *end == 0 || at.as_ref().is_some_and(|at| at.0 >= *end);
            if let Ok(positions) = &positions
                && ends.iter().zip(positions).all(reached)
            {
                return Ok(now);
            }
            if now >= until {
                bail!(
                    "not everything was committed within {} s; last: {positions:?}",
                    LIMIT.as_secs()
                );
            }
            std::thread::sleep(ASK);
        }
    };
    tokio::task::spawn_blocking(wait).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_what_java_draws() {
        // jshell> new SplittableRandom(31 * offset).nextDouble()
        for (offset, drawn) in [
            (0, 0.8833108082136426),
            (1, 0.8412107507534753),
            (9999, 0.24623517070922984),
        ] {
            assert_eq!(uniform(0, offset), drawn);
        }
        let mean = (0..10_000).map(|offset| uniform(0, offset)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
