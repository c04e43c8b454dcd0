//! Readiness: named conditions, and the `grpc.health.v1` answers that follow from them.
//!
//! | conditions | health of "" and of every service |
//! |---|---|
//! | none yet | NOT_SERVING |
//! | one or more not ready | NOT_SERVING |
//! | all ready | SERVING |
//! | any, after [`Readiness::drain`] | NOT_SERVING, watchers are told and sent away |
//!
//! Health is asked for by name: `Check` of an unknown name is NOT_FOUND, `Watch` of one says SERVICE_UNKNOWN and stays.
//! `List` tells all names at once. The service is our own: tonic-health's starts as SERVING, has no List, and its watches
//! never end, so that one watcher holds a shutdown up to its bound.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use millrace_rpc::error;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::health::health_check_response::ServingStatus;
use crate::health::health_server::{Health, HealthServer};
use crate::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

/// What a process waits for before it serves. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Picture>>);

#[derive(Debug, Clone, Default)]
struct Picture {
    /// Why a condition does not hold; none when it holds.
    conditions: BTreeMap<&'static str, Option<String>>,
    draining: bool,
}

impl Picture {
    fn ready(&self) -> bool {
        !self.draining && !self.conditions.is_empty() && self.conditions.values().all(Option::is_none)
    }
}

/// One thing that must hold before the process is ready. Starts as not ready.
#[derive(Debug, Clone)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

/// `grpc.health.v1` over a [`Readiness`].
#[derive(Debug, Clone)]
pub struct HealthService {
    readiness: Readiness,
    names: Arc<[&'static str]>,
}

impl Readiness {
    /// Readiness of a process that serves these gRPC services, and its health service.
    pub fn new(service_names: &[&'static str]) -> (Self, HealthServer<HealthService>) {
        let readiness = Self(Arc::new(watch::Sender::new(Picture::default())));
        let health = HealthService {
            readiness: readiness.clone(),
            names: service_names.into(),
        };
        (readiness, HealthServer::new(health))
    }

    /// Adds a condition. Add all of them before the first becomes ready.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition {
            name,
            readiness: self.clone(),
        };
        condition.not_ready("not checked yet");
        condition
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().ready()
    }

    /// Returns once all conditions hold.
    pub async fn ready(&self) {
        // The sender lives as long as `self`: the channel cannot close.
        let _ = self.0.subscribe().wait_for(Picture::ready).await;
    }

    /// Why the process is not ready, a sentence each; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        let picture = self.0.borrow();
        let mut reasons: Vec<String> = Vec::new();
        if picture.draining {
            reasons.push("the process is leaving".to_owned());
        }
        if picture.conditions.is_empty() {
            reasons.push("the process is starting".to_owned());
        }
        reasons.extend(
            picture
                .conditions
                .iter()
                .filter_map(|(name, why)| Some(format!("{name}: {}", why.as_ref()?))),
        );
        reasons
    }

    /// NOT_SERVING from here on, whatever the conditions say.
    pub fn drain(&self) {
        self.change(|picture| picture.draining = true);
    }

    fn change(&self, change: impl FnOnce(&mut Picture)) {
        let mut turned = None;
        self.0.send_modify(|picture| {
            let before = picture.ready();
            change(picture);
            turned = (before != picture.ready()).then(|| picture.ready());
        });
        match turned {
            Some(true) => tracing::info!("ready"),
            Some(false) => tracing::warn!(reasons = ?self.reasons(), "not ready"),
            None => {}
        }
    }
}

impl Condition {
    /// It holds.
    pub fn ready(&self) {
        self.set(None);
    }
    /// It does not hold, for a reason that is a sentence for people.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }
    fn set(&self, reason: Option<String>) {
        self.readiness.change(|picture| {
            picture.conditions.insert(self.name, reason);
        });
    }
}

impl HealthService {
    fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.names.contains(&name)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn status(picture: &Picture) -> ServingStatus {
    match picture.ready() {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

fn leaving() -> Status {
    error::unavailable(
        "DRAINING",
        "the process is leaving: ask another one",
        Duration::from_secs(1),
    )
    .status()
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        if !self.knows(name) {
            let message = format!("no service `{name}` here; known: {}", self.names.join(", "));
            return Err(error::not_found("service", name, "SERVICE_UNKNOWN", message).into());
        }
        Ok(Response::new(answer(status(&self.readiness.0.borrow()))))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let now = answer(status(&self.readiness.0.borrow()));
        let names = [""].iter().chain(self.names.iter());
        let statuses = names.map(|name| ((*name).to_owned(), now)).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let pictures = WatchStream::new(self.readiness.0.subscribe());
        let mut last = None;
        let answers = pictures.flat_map(move |picture| {
            let status = if known {
                status(&picture)
            } else {
                ServingStatus::ServiceUnknown
            };
            let changed = (last.replace(status) != Some(status)).then(|| Ok(answer(status)));
            let end = picture.draining.then(|| Err(leaving()));
            futures::stream::iter(changed.into_iter().chain(end))
        });
        Ok(Response::new(Box::pin(until_error(answers))))
    }
}

/// Passes items up to and with the first error, then ends without waiting for another one.
fn until_error<T, E>(items: impl Stream<Item = Result<T, E>>) -> impl Stream<Item = Result<T, E>> {
    futures::stream::unfold(Some(Box::pin(items)), |items| async move {
        let mut items = items?;
        let item = items.next().await?;
        let rest = item.is_ok().then_some(items);
        Some((item, rest))
    })
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
