//! Chaos on a real stack, and the verdict on what it left.
//!
//! ```text
//! storm    writers ─▶ journal      searchers ─▶ sightings      canaries      faults, by their seed
//! calm     faults end, writers finish what they asked for, every service serves, a fresh document passes
//! verdict  journal + topics (read_committed) + last searches + sightings ─▶ findings, none of which may be there
//! ```
//!
//! [`bed`] is what a run stands on. [`journal`] is the list of debts: what was asked for is on disk before it is sent, a
//! receipt before it is used. [`client`] asks and searches; [`writers`], [`searchers`] and [`canaries`] are what clients do,
//! [`faults`], [`brokers`] and [`model`] what happens meanwhile, [`watch`] what the processes show. [`evidence`] is read when
//! it is over; [`verdict`] judges it, as a pure function; [`report`] is what people and programs see of it, `rare` what the
//! run came by. [`crash`] has each process die in every place where that could cost something; [`mutation`] breaks rules, to
//! see that it is found.
//!
//! Promises:
//! - A seed gives each writer the same acts and each process the same faults, in the same order. When each comes is the
//!   machine's.
//! - Of each kind of finding the first ones are told, with document and revision.
//! - A run that ends without a verdict is an error, never a pass.
//!
//! Not part of any service. In a storm by command nothing inside a service is touched: what is tested is what runs. Scripted
//! crashes and broken rules need `millrace-failpoints`, which other builds do not have. Rejected: a model of Kafka (it would promise what
//! Kafka does not).

pub mod bed;
pub mod brokers;
mod calm;
pub mod canaries;
pub mod client;
pub mod crash;
pub mod evidence;
pub mod faults;
pub mod journal;
pub mod model;
pub mod mutation;
mod rare;
pub mod report;
pub mod searchers;
mod storm;
pub mod verdict;
pub mod watch;
pub mod writers;

pub use millrace_testkit::Size;
pub use report::Report;
pub use storm::{Interrupted, Options, run};
