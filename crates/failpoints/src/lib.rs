//! Named places where a test makes a service die, or makes it break a rule.
//!
//! A [`CrashPoint`] stands where an effect has happened and the next has not: the process that reaches it while it is
//! armed dies there, as by `kill -9`. A [`Mutant`] is a rule that the code keeps and, while the mutant is active, does not:
//! whoever says that the rule is kept must find out. A fault of [`device`] befalls what runs the model while it is on, one of
//! [`client`] what reads the log.
//!
//! Promises:
//! - Without the feature `active` nothing is looked at, and nothing is left in the code: [`CrashPoint::reached`] is empty
//!   and [`Mutant::is_active`] is `false`. No service enables it; the tests and `millrace chaos --mutant` do.
//! - With it, a process follows the folder that the environment variable [`FOLDER`] names; without one it does nothing.
//! - An armed point kills once: whoever is started again finds the mark that the first one left.
//!
//! ```text
//! <folder>/<service>     names of crash points that are armed, and of mutants and faults that are on, one a line
//! <folder>/on/<service>  the same, written by the service once it has done so
//! <folder>/hit/<service>.<point>     empty, left by the process that died there
//! ```
//!
//! Which there are stands in [`points`], [`mutants`], [`device`] and [`client`]; `fail` keeps which of them is on. Rejected:
//! its own environment variable (it is read once, so that every point would cost a start of the service, and it knows no
//! `kill -9`).

pub mod client;
pub mod device;
pub mod mutants;
pub mod points;

#[cfg(feature = "active")]
mod follow;
mod switch;

pub use mutants::Mutant;
pub use points::CrashPoint;
pub use switch::Switch;

/// Environment variable with the folder that is followed.
pub const FOLDER: &str = "MILLRACE_FAILPOINTS";

/// Whether this build has failpoints at all.
pub const ACTIVE: bool = cfg!(feature = "active");

/// Follows the folder for this service, from now to the end of the process.
pub fn follow(service: &'static str) {
    #[cfg(feature = "active")]
    if let Some(folder) = std::env::var_os(FOLDER) {
        follow::begin(service, folder.into());
    }
    #[cfg(not(feature = "active"))]
    let _ = service;
}
