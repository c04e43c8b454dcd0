//! Parsing: from an accepted body to chunks in parts.
//!
//! [`parse`] is the stage; [`media`], [`sections`], [`tokens`], [`chunk`] and [`parts`] are its pure steps; [`repeats`]
//! knows which request ids had their effect, [`lanes`] which lane a document is in.

pub mod chunk;
pub mod lanes;
pub mod media;
pub mod parse;
pub mod parts;
pub mod repeats;
pub mod sections;
pub mod tokens;
