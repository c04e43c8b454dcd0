//! What every Millrace process shares, so that all three services start, report, serve and stop in the same way.
//!
//! A service's life, in the order of the modules: [`process`] (from arguments to exit code), [`config`] (defaults, file,
//! environment, flags; a mistake names file and key; [`settings`] are sections that all have), [`telemetry`] (logs),
//! [`tasks`] (named, joined, stopped within a bound), [`readiness`] (conditions become grpc health), [`codec`] (records ↔
//! bytes, proved against the registry at start: [`versions`]), [`stage`] (registry, then service, then Kafka), [`dead_letters`] (what is
//! written of records that are given up), [`server`] (gRPC with health, reflection, deadlines), [`pipeline`] (how the
//! stages are doing).
//!
//! Promises:
//! - A process is NOT_SERVING until every condition holds, and again from the moment it begins to leave.
//! - SIGTERM and SIGINT stop it cleanly at any time, while it starts too; a second one stops it at once.
//! - A task that fails, panics or ends too early ends the process, with its name and its error.
//! - Stopping is bounded: what does not end in time is named and cut off.
//!
//! Rejected: a supervisor that restarts tasks inside the process (the outside restarts processes, with a clean state);
//! health that is set by hand in each service (it drifts from the truth).

pub mod clock;
pub mod codec;
pub mod config;
pub mod dead_letters;
pub mod health;
pub mod http;
pub mod partition;
pub mod pipeline;
pub mod process;
pub mod readiness;
pub mod server;
pub mod settings;
pub mod stage;
pub mod tasks;
pub mod telemetry;
pub mod versions;
