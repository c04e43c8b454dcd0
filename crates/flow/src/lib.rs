//! The stage runtime: one core under all three services.
//!
//! A stage is a [`tower::Service`] of one record: [`Delivery`] in, [`Outputs`] out, or a [`Failure`]. All else is the
//! runtime's: which records run, in which order results leave, what is committed and when.
//!
//! Promises:
//! - **Order per key.** Records of one key run one after another; their outputs leave in the order of the inputs.
//!   Records of different keys run concurrently, however few partitions there are.
//! - **No head-of-line blocking.** What finishes leaves with the next transaction. The position of a partition is its
//!   lowest unfinished offset, with the finished ones above it beside it ([`position`]): a new owner skips them, so
//!   nothing is done twice and nothing waits for a slower document, not for one that waits for an hour.
//! - **Every failure has one answer.** What a dependency causes is waited for and burns no attempt ([`gate`]); what a
//!   record causes is tried again a few times and then given up: its dead letter leaves in its place, in one transaction
//!   with its position. The cases stand in `core/fail.rs` and `core/leave.rs`.
//! - **Fair.** Of what could run, topics take turns by weight, and so do tenants, however much each has waiting within
//!   the window ([`fair`]).
//! - **A record that kills the process** is found and given up ([`quarantine`]).
//! - **Bounded.** Records and bytes received and not finished are bounded per partition ([`window`]) and per process
//!   ([`budget`]). Full means: stop fetching that partition, go on polling.
//! - **Closed doors.** Every unit of work belongs to one assignment of its partition; what finishes after that was taken
//!   away changes nothing. A partition is given back within a bound ([`drain`]).
//!
//! Parts: [`stage`] is what a service implements; [`position`], [`window`], [`budget`], [`lane`], [`fair`], [`retry`], [`gate`],
//! [`quarantine`], [`drain`] and [`core`], which decides with them, are the pure core: plain types, no client, no clock
//! of their own, tested against a naive model; [`runner`] drives a stage with them over a [`log::Link`]; [`progress`] is
//! what the outside may see.
//!
//! Rejected: one task per partition (a hot partition would use one core), commit up to the first gap (a slow document
//! would hold back, or repeat, everything behind it), a store of our own for positions (two truths), retry topics (later
//! records of the document would overtake).

pub mod budget;
pub mod core;
pub mod drain;
pub mod fair;
pub mod gate;
pub mod lane;
pub mod layers;
pub mod log;
pub mod position;
pub mod progress;
pub mod quarantine;
pub mod rate;
pub mod retry;
pub mod runner;
pub mod stage;
pub mod window;

pub use stage::{DeadLetters, Delivery, Failure, Headers, Origin, Output, Outputs, Rejection, TopicPartition};
