//! Parsing: from an accepted body to chunks in parts.
//!
//! [`parse`] is the stage; [`media`], [`sections`], [`tokens`], [`chunk`] and [`parts`] are its pure steps.

pub mod chunk;
pub mod media;
pub mod sections;
pub mod tokens;
