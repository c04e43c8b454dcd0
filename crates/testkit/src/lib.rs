//! What tests of the whole need: a real stack of their own, eyes on its topics, patience without sleeps.
//!
//! [`stack`] starts `millrace up` in a temporary directory and kills parts of it on request, [`size`] names them; [`client`] submits and
//! searches as another team's client would; [`log`] reads topics `read_committed` and holds them against the promises;
//! [`group`] reads a consumer group's generations; [`wire`] does to a broker what operators and rivals do, [`cluster`] asks
//! several who leads and who is in sync; [`proxy`] loses brokers' answers and cuts links; [`model`] is a fast model behind
//! an endpoint that misbehaves on request; [`children`] finds what a process has started; [`python`] has what others use there; [`still`] holds processes still; [`traces`] receives what services send; [`poll`] waits on a level with a limit and prints
//! the last state. No service depends on this crate but for its tests.

pub mod children;
pub mod client;
pub mod cluster;
pub mod group;
pub mod log;
pub mod model;
pub mod poll;
pub mod proxy;
pub mod python;
pub mod size;
pub mod stack;
pub mod still;
pub mod traces;
pub mod wire;

pub use client::Client;
pub use model::ModelEndpoint;
pub use proxy::Proxy;
pub use size::Size;
pub use stack::Stack;
