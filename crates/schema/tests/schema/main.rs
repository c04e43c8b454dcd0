//! The crate from outside: the client against scripted answers, the checker against tables of cases.

mod compat;
mod limits;
mod registry;
