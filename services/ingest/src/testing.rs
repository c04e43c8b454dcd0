//! Stand-ins for the log, shared by unit tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use millrace_events::headers::LANE;
use millrace_events::{DocumentKey, DocumentStatus, Epoch, Lane, Revision, State};
use millrace_flow::{Delivery, Headers, Origin, Output};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::codec::{Offline, RecordCodec};
use crate::log::{AppendError, CommandLog, EndsError, LogEnds, Position};
use crate::pipeline::lanes::LaneConfig;
use crate::replica::{Event, replica};
use crate::status::{Replica, Store};

pub(crate) const REQUEST: &str = "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11";
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) fn document(id: &str) -> DocumentKey {
    DocumentKey::new("t", id).unwrap()
}

pub(crate) fn revision(offset: i64) -> Revision {
    Revision::new(Epoch::FIRST, offset).unwrap()
}

pub(crate) fn status(id: &str, offset: i64, state: State) -> DocumentStatus {
    DocumentStatus {
        tenant: "t".into(),
        document_id: id.into(),
        revision: revision(offset).get(),
        state,
        ..DocumentStatus::default()
    }
}

/// `bulk` and `urgent`.
pub(crate) fn lanes() -> LaneConfig {
    LaneConfig {
        names: ["bulk", "urgent"].map(|name| Lane::new(name).unwrap()).into(),
        ..LaneConfig::default()
    }
}

/// A delivery of topic `test`, partition 3.
pub(crate) fn delivery(offset: i64, key: impl ToString, value: Option<bytes::Bytes>) -> Delivery {
    let mut headers = Headers::default();
    headers.push("traceparent", TRACE);
    Delivery {
        origin: Origin {
            topic: Arc::from("test"),
            partition: 3,
            offset,
        },
        key: Some(key.to_string().into()),
        value,
        headers,
        timestamp_ms: 0,
        attempt: 1,
        span: Default::default(),
    }
}

/// A replica whose topic is written by the test.
pub(crate) struct Statuses {
    pub replica: Replica,
    events: mpsc::Sender<Event>,
    next: i64,
    _running: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Statuses {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (replica, feed) = replica(Store::open(folder.path()).unwrap());
        let (events, receiver) = mpsc::channel(16);
        let running = tokio::spawn(async move {
            let fed = feed.run(ReceiverStream::new(receiver), Offline, CancellationToken::new());
            let _ended = fed.await;
        });
        Self {
            replica,
            events,
            next: 0,
            _running: running,
            _folder: folder,
        }
    }
    /// Writes a status and waits until the replica has it.
    pub(crate) async fn write(&mut self, status: DocumentStatus) {
        self.write_in("", status).await;
    }
    /// As [`Self::write`], of a document in a lane.
    pub(crate) async fn write_in(&mut self, lane: &str, status: DocumentStatus) {
        let value = Some(Offline.encode(&status).unwrap());
        let mut delivery = delivery(self.next, status.key().unwrap(), value);
        if !lane.is_empty() {
            delivery.headers.push(LANE, lane.to_owned());
        }
        self.events.send(Event::Record(delivery)).await.unwrap();
        self.next += 1;
        self.replica.reached(3, self.next).await;
    }
}

/// A log that answers as told, then with rising offsets from 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeLog(pub Arc<Mutex<LogState>>);

#[derive(Debug, Default)]
pub(crate) struct LogState {
    pub answers: VecDeque<Result<i64, AppendError>>,
    pub appended: Vec<Output>,
}

impl CommandLog for FakeLog {
    async fn append(&self, output: Output) -> Result<Position, AppendError> {
        let mut log = self.0.lock().unwrap();
        let next = log.appended.len() as i64;
        log.appended.push(output);
        let offset = log.answers.pop_front().unwrap_or(Ok(next))?;
        Ok(Position { partition: 3, offset })
    }
}

/// Where partitions end, or that the log is away.
#[derive(Debug, Clone)]
pub(crate) struct FakeEnds {
    pub submitted: Option<(i64, i64)>,
    pub status: Option<i64>,
}

impl LogEnds for FakeEnds {
    async fn submitted(&self, _: &DocumentKey) -> Result<(i64, i64), EndsError> {
        self.submitted.ok_or(EndsError("away".into()))
    }
    async fn status_end(&self, _: i32) -> Result<i64, EndsError> {
        self.status.ok_or(EndsError("away".into()))
    }
}
