//! The stage runtime on the real broker: a stage that copies, whose records say what befalls them, run in processes that
//! are stopped, killed and fenced.
//!
//! [`stage`] is that stage, and what its process does; [`process`] starts, signals and watches one, [`still`] holds it still; [`bed`] is a case's
//! topics, and the promises that its outputs are held against; [`records`] what it writes there, and what comes out. The
//! rest are the cases.

pub mod backlog;
pub mod bed;
pub mod drain;
pub mod failures;
pub mod idle;
pub mod membership;
pub mod poison;
pub mod positions;
pub mod process;
pub mod records;
pub mod stage;
pub mod transactions;
