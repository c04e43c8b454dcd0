//! The service's stages, testable with no network.

pub mod embed;
