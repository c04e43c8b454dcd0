//! gRPC as all three services and their clients speak it: errors, deadlines, trace context, connections.
//!
//! Promises:
//! - Every error carries `google.rpc.ErrorInfo` with the domain `millrace` and a stable reason, the ones that tonic
//!   makes by itself too ([`complete`]). UNAVAILABLE and RESOURCE_EXHAUSTED carry `RetryInfo`, NOT_FOUND `ResourceInfo`,
//!   INVALID_ARGUMENT about a field `BadRequest` ([`error`]).
//! - What a client reads names its own input, never our hosts, paths or causes: those go to the log under an incident
//!   number that both sides have.
//! - A deadline is answered with DEADLINE_EXCEEDED, ends streams too, and travels: handlers see what is left and pass it
//!   on ([`deadline`]).
//! - One trace per request: the caller's `traceparent`, or a new one ([`trace`]), and a span a call on both sides
//!   ([`span`]).
//! - Clients connect when first used, give up connecting in time and do not ping more often than servers of other
//!   teams allow ([`client`]).
//!
//! Rejected: tonic's own time-out (it answers CANCELLED, which says that the caller left), retry inside the channel
//! (only a caller knows whether its request may be sent twice).

pub mod client;
pub mod complete;
pub mod deadline;
pub mod error;
pub mod limit;
pub mod span;
pub mod trace;
