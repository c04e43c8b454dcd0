//! The thread that writes: updates in the order in which they came, and one flush for all who ask for one meanwhile.
//!
//! The engine takes one update at a time, and nobody writes while it flushes. On one thread, updates follow each other without
//! another thread to be woken for each. A flush waits until no update does, at most [`BEFORE_FLUSH`] of them: what was written
//! together becomes durable together.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use qdrant_edge::{EdgeShard, OperationError, UpdateOperation};
use tokio::sync::{mpsc, oneshot};

use super::errors::from_engine;
use crate::index::IndexError;

/// Updates and flushes that wait. Who comes when it is full waits for room.
const QUEUE: usize = 256;
/// Updates that may go before a flush that was asked for earlier.
const BEFORE_FLUSH: usize = 256;
const FLUSH: &str = "flush";

/// What is written to; its calls block.
pub trait Engine: Send + 'static {
    /// Applies one update.
    fn update(&self, update: UpdateOperation) -> Result<(), OperationError>;
    /// Makes all that was applied survive the machine.
    fn flush(&self) -> Result<(), OperationError>;
}

impl Engine for std::sync::Arc<EdgeShard> {
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
    queue: mpsc::Sender<Task>,
    // Behind the queue, which must be gone before it is waited for.
    _thread: Joined,
}

type Answered = oneshot::Sender<Result<(), IndexError>>;

enum Task {
    Update {
        operation: &'static str,
        update: Box<UpdateOperation>,
        answered: Answered,
    },
    Flush(Answered),
}

#[derive(Debug)]
struct Joined(Option<JoinHandle<()>>);

impl Writer {
    /// Starts the thread.
    pub fn start(engine: impl Engine) -> Result<Self, IndexError> {
        let (queue, tasks) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("index-write".into())
            .spawn(move || run(&engine, tasks))
            .map_err(|e| unavailable("start the thread that writes", e.to_string()))?;
        Ok(Self {
            queue,
            _thread: Joined(Some(thread)),
        })
    }

    /// Answers when it is applied. A caller that goes away leaves it to its end.
    pub async fn update(&self, operation: &'static str, update: UpdateOperation) -> Result<(), IndexError> {
        let update = Box::new(update);
        self.ask(operation, |answered| Task::Update {
            operation,
            update,
            answered,
        })
        .await
    }

    /// Answers when a flush that began after this call has ended.
    pub async fn flush(&self) -> Result<(), IndexError> {
        self.ask(FLUSH, Task::Flush).await
    }

    async fn ask(&self, operation: &'static str, task: impl FnOnce(Answered) -> Task) -> Result<(), IndexError> {
        // A panic of the engine stands in the log.
        let unanswered = || unavailable(operation, "the engine gave it up".into());
        let (answered, answer) = oneshot::channel();
        self.queue.send(task(answered)).await.map_err(|_| unanswered())?;
        answer.await.map_err(|_| unanswered())?
    }
}

fn unavailable(operation: &'static str, message: String) -> IndexError {
    IndexError::Unavailable { operation, message }
}

fn run(engine: &impl Engine, mut queue: mpsc::Receiver<Task>) {
    let flush = |asked: &mut Vec<Answered>| answer(asked.drain(..), survived(|| engine.flush(), FLUSH));
    let (mut tasks, mut flushes) = (Vec::with_capacity(QUEUE), Vec::new());
    let mut before_flush = 0;
    while queue.blocking_recv_many(&mut tasks, QUEUE) > 0 {
        for task in tasks.drain(..) {
            match task {
                Task::Update {
                    operation,
                    update,
                    answered,
                } => {
                    answer([answered], survived(|| engine.update(*update), operation));
                    before_flush += usize::from(!flushes.is_empty());
                    if before_flush == BEFORE_FLUSH {
                        flush(&mut flushes);
                        before_flush = 0;
                    }
                }
                Task::Flush(answered) => flushes.push(answered),
            }
        }
        if queue.is_empty() && !flushes.is_empty() {
            flush(&mut flushes);
            before_flush = 0;
        }
    }
}

/// None where the engine panicked: the next call finds it as it is.
fn survived(
    call: impl FnOnce() -> Result<(), OperationError>,
    operation: &'static str,
) -> Option<Result<(), IndexError>> {
    let done = catch_unwind(AssertUnwindSafe(call)).ok()?;
    Some(done.map_err(from_engine(operation)))
}

/// Tells whoever is still there.
fn answer(to: impl IntoIterator<Item = Answered>, done: Option<Result<(), IndexError>>) {
    for answered in to {
        if let Some(done) = &done {
            let _ = answered.send(done.clone());
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the index panicked");
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Update { operation, .. } => f.write_str(operation),
            Self::Flush(_) => f.write_str(FLUSH),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;
    use std::sync::{Arc, Mutex};

    use futures::FutureExt as _;
    use futures::future::join_all;
    use qdrant_edge::PointOperations;

    use super::*;

    type Calls = Arc<Mutex<Vec<&'static str>>>;

    /// Writes down what is asked of it. Each call waits to be told how it ends.
    struct OnOrder {
        calls: Calls,
        ends: std_mpsc::Receiver<End>,
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
        writer: Writer,
        calls: Calls,
        ends: std_mpsc::Sender<End>,
    }

    impl Case {
        fn start() -> Self {
            let (ends, told) = std_mpsc::channel();
            let calls = Calls::default();
            let engine = OnOrder {
                calls: calls.clone(),
                ends: told,
            };
            let writer = Writer::start(engine).unwrap();
            Self { writer, calls, ends }
        }

        async fn update(&self) -> Result<(), IndexError> {
            let nothing = PointOperations::DeletePoints { ids: Vec::new() };
            let update = UpdateOperation::PointOperation(nothing);
            self.writer.update("write points", update).await
        }

        /// An update under way, behind which others queue.
        async fn busy(&self) -> Result<(), IndexError> {
            let mut update = Box::pin(self.update());
            while self.calls().is_empty() {
                assert!((&mut update).now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            update.await
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
            while case.calls().is_empty() {
                tokio::task::yield_now().await;
            }
            let both = join_all([case.writer.flush().boxed(), case.update().boxed()]);
            let more = join_all([case.writer.flush().boxed(), case.update().boxed()]);
            let asked = async { tokio::join!(both, more) };
            let told = async { case.end(well(4)) };
            let ((both, more), ()) = tokio::join!(asked, told);
            both.into_iter().chain(more).collect::<Vec<_>>()
        };
        let (first, asked) = tokio::join!(case.busy(), asked);
        assert!(first.is_ok() && asked.iter().all(Result::is_ok), "{asked:?}");
        assert_eq!(case.calls(), ["update", "update", "update", "flush"]);
        case.end(well(1));
        case.writer.flush().await.unwrap();
        assert_eq!(case.calls().len(), 5, "a later one is another");
    }

    #[tokio::test]
    async fn updates_that_never_end_do_not_keep_a_flush_waiting() {
        let case = Case::start();
        case.end(well(2 * BEFORE_FLUSH + QUEUE + 2));
        let flush = async {
            tokio::task::yield_now().await;
            case.writer.flush().await
        };
        let updates = join_all(std::iter::repeat_with(|| case.update()).take(2 * BEFORE_FLUSH));
        let (flushed, _) = tokio::join!(flush, updates);
        flushed.unwrap();
        let calls = case.calls();
        let flush = calls.iter().position(|call| *call == "flush").unwrap();
        assert!(flush <= QUEUE + BEFORE_FLUSH, "{flush}");
    }

    #[tokio::test]
    async fn a_flush_that_fails_is_told_to_all_who_asked() {
        let case = Case::start();
        let asked = async {
            while case.calls().is_empty() {
                tokio::task::yield_now().await;
            }
            let both = join_all([case.writer.flush(), case.writer.flush()]);
            let told = async { case.end([End::Well, End::Badly]) };
            tokio::join!(both, told).0
        };
        let (_, asked) = tokio::join!(case.busy(), asked);
        let full = |done: &Result<(), IndexError>| done.as_ref().is_err_and(|e| e.to_string().contains("disk full"));
        assert!(asked.iter().all(full), "{asked:?}");
        case.end(well(1));
        case.writer.flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_of_the_engine_is_an_error_and_the_next_update_is_applied() {
        let case = Case::start();
        case.end([End::Panic, End::Well]);
        let error = case.update().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the index could not write points: the engine gave it up"
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
