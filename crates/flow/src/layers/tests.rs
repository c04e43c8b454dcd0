use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::gate::PATIENCE;
use super::*;
use crate::stage::{Delivery, Failure, Headers, Origin, Outputs};

fn delivery(offset: i64) -> Delivery {
    Delivery {
        origin: Origin {
            topic: "documents.parsed".into(),
            partition: 3,
            offset,
        },
        key: Some(Bytes::from_static(b"acme/guide")),
        value: Some(Bytes::from_static(b"SECRET")),
        headers: Headers::default(),
        timestamp_ms: 0,
        attempt: 2,
        span: Default::default(),
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Outputs, Failure>> + Send>>;

/// Notes the offsets it is called with; each call ends when the test adds a permit.
#[derive(Clone)]
struct Slow {
    started: Arc<Mutex<Vec<i64>>>,
    permits: Arc<Semaphore>,
}

impl Slow {
    fn new() -> Self {
        Self {
            started: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        }
    }
    fn service(&self) -> impl Service<Delivery, Response = Outputs, Error = Failure, Future = Answer> + Clone + use<> {
        let slow = self.clone();
        service_fn(move |delivery: Delivery| -> Answer {
            let slow = slow.clone();
            Box::pin(async move {
                slow.started.lock().unwrap().push(delivery.origin.offset);
                slow.permits.acquire().await.unwrap().forget();
                Ok(Outputs::default())
            })
        })
    }
    fn started(&self) -> Vec<i64> {
        self.started.lock().unwrap().clone()
    }
}

/// Lets every task run until all of them wait.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_a_dependency_that_is_away() {
    let slow = Slow::new();
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(slow.service());
    let began = Instant::now();
    let failure = service.clone().oneshot(delivery(1)).await.unwrap_err();
    assert_eq!((failure.class(), failure.reason()), ("TRANSIENT", "TIMEOUT"));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    slow.permits.add_permits(1);
    service.oneshot(delivery(2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_time_stays_what_it_is() {
    let refuse = |_: Delivery| async {
        let message = "no".to_owned();
        let reason = "UNREADABLE_RECORD";
        Err::<Outputs, _>(Failure::Invalid { reason, message })
    };
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .service(service_fn(refuse));
    let failure = service.oneshot(delivery(1)).await.unwrap_err();
    assert_eq!((failure.class(), failure.message()), ("INVALID", "no"));
}

struct Gate {
    open: watch::Sender<bool>,
    slow: Slow,
    spawn: Box<dyn Fn(i64) -> Call>,
}

/// All layers but the span, one turn at a time.
fn gated(concurrency: usize) -> Gate {
    let (open, reader) = watch::channel(true);
    let slow = Slow::new();
    let service = ServiceBuilder::new()
        .layer(GateLayer::new(reader))
        .concurrency_limit(concurrency)
        .layer(TimeoutLayer::new(Duration::from_secs(300)))
        .service(slow.service());
    // As the runner does it: a clone a record.
    let spawn = move |offset| tokio::spawn(service.clone().oneshot(delivery(offset)));
    Gate {
        open,
        slow,
        spawn: Box::new(spawn),
    }
}

type Call = JoinHandle<Result<Outputs, Failure>>;

/// The first record has the only turn, the second waits for it.
async fn one_waits(gate: &Gate) -> (Call, Call) {
    let first = (gate.spawn)(1);
    settle().await;
    let second = (gate.spawn)(2);
    settle().await;
    (first, second)
}

#[tokio::test(start_paused = true)]
async fn open_it_starts_by_turns() {
    let gate = gated(1);
    let calls: Vec<_> = (1..=2).map(&gate.spawn).collect();
    settle().await;
    assert_eq!(gate.slow.started(), [1]);
    gate.slow.permits.add_permits(2);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(gate.slow.started(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_turn_when_it_shuts_starts_when_it_opens() {
    let gate = gated(1);
    let (_first, second) = one_waits(&gate).await;
    gate.open.send_replace(false);
    gate.slow.permits.add_permits(1);
    settle().await;
    advance(PATIENCE / 2).await;
    settle().await;
    assert_eq!(gate.slow.started(), [1], "its turn came and the gate was shut");
    gate.open.send_replace(true);
    settle().await;
    assert_eq!(gate.slow.started(), [1, 2]);
    gate.slow.permits.add_permits(1);
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let gate = gated(1);
    let (_first, _second) = one_waits(&gate).await;
    gate.open.send_replace(false);
    gate.slow.permits.add_permits(1);
    settle().await;
    assert_eq!(gate.slow.started(), [1]);
    advance(PATIENCE).await;
    settle().await;
    assert_eq!(gate.slow.started(), [1, 2], "a gate that never opens");

    let gate = gated(1);
    let (_first, _second) = one_waits(&gate).await;
    gate.open.send_replace(false);
    gate.slow.permits.add_permits(1);
    drop(gate.open);
    settle().await;
    assert_eq!(gate.slow.started(), [1, 2], "a gate whose owner is gone");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_counts_for_no_time_out() {
    let gate = gated(1);
    let (first, second) = one_waits(&gate).await;
    advance(Duration::from_secs(299)).await;
    gate.slow.permits.add_permits(1);
    first.await.unwrap().unwrap();
    settle().await;
    advance(Duration::from_secs(299)).await;
    gate.slow.permits.add_permits(1);
    second.await.unwrap().unwrap();
}

/// Fields of the spans that were opened, and for each event the span that it happened in.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Picture>>);

#[derive(Default)]
struct Picture {
    spans: Vec<String>,
    entered: Vec<u64>,
    events: Vec<Option<u64>>,
}

impl Visit for Picture {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let span = self.spans.last_mut().unwrap();
        span.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Seen {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut seen = self.0.lock().unwrap();
        seen.spans.push(format!("{}: ", span.metadata().name()));
        span.record(&mut *seen);
        Id::from_u64(seen.spans.len() as u64)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut *self.0.lock().unwrap());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        let mut seen = self.0.lock().unwrap();
        let within = seen.entered.last().copied();
        seen.events.push(within);
    }
    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().entered.push(id.into_u64());
    }
    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }
}

#[test]
fn what_happens_in_a_call_happens_in_its_record_s_span_which_tells_nothing_of_its_text() {
    let work = |_: Delivery| async {
        tokio::task::yield_now().await;
        tracing::info!("cut");
        Ok::<_, Failure>(Outputs::default())
    };
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new("parse"))
        .service(service_fn(work));
    let (mut odd, mut long, mut none) = (delivery(8), delivery(9), delivery(10));
    odd.key = Some(Bytes::from_static(b"two\nlines"));
    long.key = Some(Bytes::from(vec![b'k'; 601]));
    none.key = None;
    let seen = Seen::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tracing::subscriber::with_default(seen.clone(), || {
        for delivery in [delivery(7), odd, long, none] {
            runtime.block_on(service.clone().oneshot(delivery)).unwrap();
        }
    });
    let seen = seen.0.lock().unwrap();
    assert_eq!(seen.events, [Some(1), Some(2), Some(3), Some(4)]);
    let record = |offset, key| {
        format!("record: stage=\"parse\" topic=\"documents.parsed\" partition=3 offset={offset} attempt=2 {key}")
    };
    let expected = [
        record(7, r#"key="acme/guide" "#),
        record(8, r#"key="two\nlines" "#),
        record(9, ""),
        record(10, ""),
    ];
    assert_eq!(seen.spans, expected);
}
