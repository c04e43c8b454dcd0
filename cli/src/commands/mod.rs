//! One file a command: its flags, its examples, its work.

pub mod audit;
pub mod bench;
pub mod chaos;
pub mod dlq;
pub mod document;
pub mod fetch;
pub mod run;
pub mod schema;
pub mod search;
pub mod stage;
pub mod submit;
pub mod top;
pub mod topics;
pub mod trace;
pub mod up;
