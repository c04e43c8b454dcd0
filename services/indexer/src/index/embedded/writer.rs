//! The thread that writes: updates in the order in which they came, and one flush for all who ask for one meanwhile.
//!
//! The engine takes one update at a time. On one thread, updates follow each other without another thread to be woken for each,
//! and none is applied beside a flush: the engine would let go of the log of one that is half applied.
//!
//! A flush costs as much for one document as for a hundred (some forty files are synced). It begins once no update waits and the
//! pause after the flush before it is over, at the latest after [`BEFORE_FLUSH`] updates.
//!
//! The queue is a channel without a bound beside a semaphore with one: callers wait for room without blocking, and the thread
//! waits for them with a limit of time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qdrant_edge::{EdgeShard, OperationError, UpdateOperation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::errors::from_engine;
use crate::index::IndexError;

/// Updates and flushes that wait. Who comes when there are as many waits for room.
const QUEUE: usize = 256;
/// Updates that may go before a flush that was asked for earlier.
const BEFORE_FLUSH: usize = 128;
/// A pause is as many times as long as the flush before it: as long as flushes are fast, a quarter of the time at most is theirs.
const PAUSES: u32 = 3;
/// Where flushes are slow, callers wait for them long enough.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
const FLUSH: &str = "flush";

/// What is written to; its calls block.
pub trait Engine: Send + 'static {
    /// Applies one update.
    fn update(&self, update: UpdateOperation) -> Result<(), OperationError>;
    /// Makes all that was applied survive the machine. Must not run beside an update.
    fn flush(&self) -> Result<(), OperationError>;
}

impl Engine for Arc<EdgeShard> {
    fn update(&self, update: UpdateOperation) -> Result<(), OperationError> {
        EdgeShard::update(self, update)
    }
    fn flush(&self) -> Result<(), OperationError> {
        EdgeShard::flush(self)
    }
}

/// Hands over to the thread, which ends with it: what was handed over is done first.
#[derive(Debug)]
pub struct Writer {
    room: Arc<Semaphore>,
    queue: Sender<(Task, OwnedSemaphorePermit)>,
    // Behind the queue, which must be gone before it is waited for.
    _thread: Joined,
}

type Answered = oneshot::Sender<Result<(), IndexError>>;

enum Task {
    Update(&'static str, Box<UpdateOperation>, Answered),
    Flush(Answered),
}

#[derive(Debug)]
struct Joined(Option<JoinHandle<()>>);

impl Writer {
    /// Starts the thread.
    pub fn start(engine: impl Engine) -> Result<Self, IndexError> {
        let (queue, tasks) = channel();
        let thread = std::thread::Builder::new()
            .name("index-write".into())
            .spawn(move || run(&engine, &tasks, Flushes::default()))
            .map_err(|e| unavailable("start the thread that writes", e.to_string()))?;
        Ok(Self {
            room: Arc::new(Semaphore::new(QUEUE)),
            queue,
            _thread: Joined(Some(thread)),
        })
    }

    /// Answers when it is applied. A caller that goes away leaves it to its end.
    pub async fn update(&self, operation: &'static str, update: UpdateOperation) -> Result<(), IndexError> {
        let update = Box::new(update);
        self.ask(operation, |answered| Task::Update(operation, update, answered))
            .await
    }

    /// Answers when a flush that began after this call has ended.
    pub async fn flush(&self) -> Result<(), IndexError> {
        self.ask(FLUSH, Task::Flush).await
    }

    async fn ask(&self, operation: &'static str, task: impl FnOnce(Answered) -> Task) -> Result<(), IndexError> {
        let ended = || unavailable(operation, "the thread that writes has ended".into());
        let (answered, answer) = oneshot::channel();
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| ended())?;
        self.queue.send((task(answered), room)).map_err(|_| ended())?;
        let panicked = |_| unavailable(operation, "the engine panicked, see the log".into());
        answer.await.map_err(panicked)?
    }
}

fn unavailable(operation: &'static str, message: String) -> IndexError {
    IndexError::Unavailable { operation, message }
}

fn run(engine: &impl Engine, queue: &Receiver<(Task, OwnedSemaphorePermit)>, mut flushes: Flushes) {
    loop {
        let next = match flushes.asked.is_empty() {
            true => queue.recv().map_err(RecvTimeoutError::from),
            false => queue.recv_timeout(flushes.pause_left()),
        };
        match next {
            Ok((Task::Update(operation, update, answered), _room)) => {
                answer(&done(operation, || engine.update(*update)), answered);
                flushes.updated(engine);
            }
            Ok((Task::Flush(answered), room)) => flushes.asked.push((answered, room)),
            Err(RecvTimeoutError::Timeout) => flushes.flush(engine),
            Err(RecvTimeoutError::Disconnected) => return flushes.flush(engine),
        }
    }
}

/// Those who wait for the next flush.
#[derive(Default)]
struct Flushes {
    asked: Vec<(Answered, OwnedSemaphorePermit)>,
    /// Since the first of them asked.
    updates: usize,
    /// When the pause after the last flush ends.
    pause_until: Option<Instant>,
}

impl Flushes {
    fn pause_left(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.pause_until.map(left).unwrap_or_default()
    }

    fn updated(&mut self, engine: &impl Engine) {
        if !self.asked.is_empty() {
            self.updates += 1;
            if self.updates == BEFORE_FLUSH {
                self.flush(engine);
            }
        }
    }

    fn flush(&mut self, engine: &impl Engine) {
        let began = Instant::now();
        let asked = std::mem::take(&mut self.asked);
        if asked.is_empty() {
            return;
        }
        let done = done(FLUSH, || engine.flush());
        *self = Self {
            pause_until: pause(asked.len(), began.elapsed()).map(|pause| Instant::now() + pause),
            ..Self::default()
        };
        for (answered, _room) in asked {
            answer(&done, answered);
        }
    }
}

/// After a flush that so many asked for and that took so long: in which others may join the next one. Who flushes alone, as the
/// parts of one document do one after another, has nobody to wait for.
fn pause(asked: usize, took: Duration) -> Option<Duration> {
    (asked > 1).then(|| (PAUSES * took).min(LONGEST_PAUSE))
}

/// None where the engine panicked: the next call finds it as it is.
fn done(operation: &'static str, call: impl FnOnce() -> Result<(), OperationError>) -> Option<Result<(), IndexError>> {
    let done = catch_unwind(AssertUnwindSafe(call)).ok()?;
    Some(done.map_err(from_engine(operation)))
}

/// Tells a caller that is still there.
fn answer(done: &Option<Result<(), IndexError>>, answered: Answered) {
    if let Some(done) = done {
        let _ = answered.send(done.clone());
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the index panicked");
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
