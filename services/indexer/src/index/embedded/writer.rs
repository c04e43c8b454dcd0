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
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt as _;
    use futures::future::join_all;
    use qdrant_edge::PointOperations;

    use super::*;

    type Calls = Arc<Mutex<Vec<&'static str>>>;

    /// Writes down what is asked of it. Each call waits to be told how it ends.
    struct OnOrder {
        calls: Calls,
        ends: Receiver<End>,
    }

    enum End {
        Well,
        Badly,
        Panic,
    }

    impl OnOrder {
        fn call(&self, what: &'static str) -> Result<(), OperationError> {
            self.calls.lock().unwrap().push(what);
            match self.ends.recv().unwrap() {
                End::Well => Ok(()),
                End::Badly => Err(OperationError::service_error("disk full")),
                End::Panic => panic!("on order"),
            }
        }
    }

    impl Engine for OnOrder {
        fn update(&self, _: UpdateOperation) -> Result<(), OperationError> {
            self.call("update")
        }
        fn flush(&self) -> Result<(), OperationError> {
            self.call("flush")
        }
    }

    struct Case {
        // Goes first, so that nothing waits for an end that does not come.
        ends: Sender<End>,
        writer: Writer,
        calls: Calls,
    }

    impl Case {
        fn start() -> Self {
            let (ends, told) = channel();
            let calls = Calls::default();
            let engine = OnOrder {
                calls: calls.clone(),
                ends: told,
            };
            let writer = Writer::start(engine).unwrap();
            Self { ends, writer, calls }
        }

        async fn update(&self) -> Result<(), IndexError> {
            let nothing = PointOperations::DeletePoints { ids: Vec::new() };
            let update = UpdateOperation::PointOperation(nothing);
            self.writer.update("write points", update).await
        }

        /// Until something is under way, behind which others queue.
        async fn is_busy(&self) {
            self.until("something under way", || !self.calls().is_empty()).await;
        }

        async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
            let spin = async {
                // The others get their turn even where it is so already.
                tokio::task::yield_now().await;
                while !is_so() {
                    tokio::task::yield_now().await;
                }
            };
            let limit = Duration::from_secs(30);
            let waited = tokio::time::timeout(limit, spin).await;
            waited.unwrap_or_else(|_| panic!("waited for {what}: {:?}", self.calls()));
        }

        fn end(&self, ends: impl IntoIterator<Item = End>) {
            ends.into_iter().for_each(|end| self.ends.send(end).unwrap());
        }

        fn calls(&self) -> Vec<&'static str> {
            self.calls.lock().unwrap().clone()
        }
    }

    fn well(times: usize) -> impl Iterator<Item = End> {
        std::iter::repeat_with(|| End::Well).take(times)
    }

    #[tokio::test]
    async fn flushes_share_one_behind_the_updates_that_wait() {
        let case = Case::start();
        let asked = async {
            case.is_busy().await;
            let both = join_all([case.writer.flush().boxed(), case.update().boxed()]);
            let more = join_all([case.writer.flush().boxed(), case.update().boxed()]);
            let asked = async { tokio::join!(both, more) };
            let told = async { case.end(well(8)) };
            let ((both, more), ()) = tokio::join!(asked, told);
            both.into_iter().chain(more).collect::<Vec<_>>()
        };
        let (first, asked) = tokio::join!(case.update(), asked);
        assert!(first.is_ok() && asked.iter().all(Result::is_ok), "{asked:?}");
        assert_eq!(case.calls(), ["update", "update", "update", "flush"]);
        case.writer.flush().await.unwrap();
        assert_eq!(case.calls().len(), 5, "a later one is another");
    }

    #[tokio::test]
    async fn updates_that_never_end_do_not_keep_a_flush_waiting() {
        let case = Case::start();
        let all = BEFORE_FLUSH + QUEUE;
        let asked = async {
            case.is_busy().await;
            let updates = join_all(std::iter::repeat_with(|| case.update()).take(all));
            tokio::join!(case.writer.flush(), updates).0
        };
        let one_by_one = async {
            case.until("a full queue", || case.writer.room.available_permits() == 0)
                .await;
            while !case.calls().contains(&"flush") {
                let before = case.calls().len();
                case.end(well(1));
                case.until("the next call", || case.calls().len() > before).await;
            }
            case.end(well(2 * all));
        };
        let (_, flushed, ()) = tokio::join!(case.update(), asked, one_by_one);
        flushed.unwrap();
        let flush = case.calls().iter().position(|call| *call == "flush");
        assert_eq!(flush, Some(1 + BEFORE_FLUSH));
    }

    #[tokio::test]
    async fn who_asks_while_a_flush_runs_gets_the_next_one() {
        let case = Case::start();
        let second = async {
            case.until("the first flush", || case.calls() == ["flush"]).await;
            let mut second = Box::pin(case.writer.flush());
            assert!((&mut second).now_or_never().is_none());
            case.end(well(2));
            second.await
        };
        let (first, second) = tokio::join!(case.writer.flush(), second);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(case.calls(), ["flush", "flush"]);
    }

    #[test]
    fn a_pause_is_for_those_who_may_join() {
        let ms = Duration::from_millis;
        assert_eq!(pause(1, ms(8)), None);
        assert_eq!(pause(2, ms(4)), Some(ms(12)));
        assert_eq!(pause(200, ms(8)), Some(ms(24)));
        assert_eq!(pause(2, ms(1_000)), Some(LONGEST_PAUSE));
    }

    #[tokio::test]
    async fn a_flush_waits_for_the_end_of_the_pause() {
        let (ends, told) = channel();
        ends.send(End::Well).unwrap();
        let engine = OnOrder {
            calls: Calls::default(),
            ends: told,
        };
        let until = Instant::now() + LONGEST_PAUSE;
        let flushes = Flushes {
            pause_until: Some(until),
            ..Flushes::default()
        };
        let (queue, tasks) = channel();
        let thread = std::thread::spawn(move || run(&engine, &tasks, flushes));
        let (answered, answer) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        queue.send((Task::Flush(answered), room)).unwrap();
        answer.await.unwrap().unwrap();
        assert!(Instant::now() >= until);
        drop(queue);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_flush_that_fails_is_told_to_all_who_asked() {
        let case = Case::start();
        let asked = async {
            case.is_busy().await;
            let both = join_all([case.writer.flush(), case.writer.flush()]);
            let told = async { case.end([End::Well, End::Badly, End::Well, End::Well]) };
            tokio::join!(both, told).0
        };
        let (_, asked) = tokio::join!(case.update(), asked);
        let full = |done: &Result<(), IndexError>| done.as_ref().is_err_and(|e| e.to_string().contains("disk full"));
        assert!(asked.iter().all(full), "{asked:?}");
        case.writer.flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_of_the_engine_is_an_error_and_the_next_update_is_applied() {
        let case = Case::start();
        case.end([End::Panic, End::Well]);
        let error = case.update().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the index could not write points: the engine panicked, see the log"
        );
        case.update().await.unwrap();
    }

    #[tokio::test]
    async fn what_was_handed_over_is_done_although_nobody_waits() {
        let case = Case::start();
        assert!(case.update().now_or_never().is_none());
        case.end(well(1));
        drop(case.writer);
        assert_eq!(*case.calls.lock().unwrap(), ["update"]);
    }
}
