//! The publish, search and sweep algorithms on the real embedded engine.
#![cfg(feature = "embedded")]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod concurrent;
mod kit;
mod lifecycle;
mod model;
mod restoring;
mod scanning;
mod searching;
