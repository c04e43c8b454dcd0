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
