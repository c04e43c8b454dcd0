//! Asks the stage's gate before a record starts whose turn has come.
//!
//! The core starts no record while its gate is shut. What it started before may still wait for its turn when the gate
//! shuts, behind a limit of concurrency:
//!
//! | when its turn has come, the gate is | so it |
//! |---|---|
//! | open, or its owner is gone | starts |
//! | shut | keeps its turn and starts when the gate opens, but after [`PATIENCE`] at the latest |
//!
//! The wait is bounded because a gate opens to answers alone: were every record that could ask among those that wait,
//! nobody would ever ask.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tower::{Layer, Service};

use crate::gate::GateReader;
use crate::stage::Delivery;

/// Longest wait for a gate that is shut.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Holds records back while the gate is shut.
#[derive(Debug, Clone)]
pub struct GateLayer {
    gate: GateReader,
}

/// A service behind a gate.
pub struct Gated<S> {
    inner: S,
    gate: GateReader,
    opened: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl GateLayer {
    /// Asks this gate.
    pub fn new(gate: GateReader) -> Self {
        Self { gate }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            inner,
            gate: self.gate.clone(),
            opened: None,
        }
    }
}

/// A clone stands for another record: it has not begun to wait.
impl<S: Clone> Clone for Gated<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            gate: self.gate.clone(),
            opened: None,
        }
    }
}

impl<S: Service<Delivery>> Service<Delivery> for Gated<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.inner.poll_ready(cx))?;
        let shut = !*self.gate.borrow();
        if shut && self.opened.is_none() {
            self.opened = Some(Box::pin(opened(self.gate.clone())));
        }
        if let Some(opened) = &mut self.opened {
            ready!(opened.as_mut().poll(cx));
        }
        self.opened = None;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> S::Future {
        self.inner.call(delivery)
    }
}

async fn opened(mut gate: GateReader) {
    // Late, or without an owner: the record starts all the same.
    let _ = tokio::time::timeout(PATIENCE, gate.wait_for(|open| *open)).await;
}

impl<S: std::fmt::Debug> std::fmt::Debug for Gated<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gated")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
