//! `millrace top`: the stages, live. [`picture`] asks the services' own APIs, [`draw`] shows what they said.

pub mod draw;
pub mod picture;
