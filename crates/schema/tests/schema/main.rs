//! The crate from outside: the client against scripted answers, the checker against tables of cases.

mod access;
mod folder;
mod publish;
mod registry;
