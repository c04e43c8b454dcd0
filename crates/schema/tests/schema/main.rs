//! The crate from outside: the client against scripted answers, the checker against tables of cases.

mod access;
mod compat;
mod folder;
mod limits;
mod publish;
mod registry;
