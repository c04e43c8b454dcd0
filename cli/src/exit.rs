//! Exit codes, and how an error is shown.

use std::process::ExitCode;

use millrace_schema::RegistryError;
use tonic::{Code, Status};

/// Part of the work failed; what failed has been shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Shown(pub String);

/// The command line names what cannot be used: a file that is not there, a folder that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    let status = error.chain().find_map(|cause| cause.downcast_ref::<Status>());
    let away = error
        .downcast_ref::<RegistryError>()
        .is_some_and(RegistryError::is_outage);
    match status.map(Status::code) {
        _ if error.is::<Usage>() => 2,
        _ if away => 69,
        Some(Code::Unavailable | Code::DeadlineExceeded) => 69,
        _ => 1,
    }
}

/// Shows an error in one line, with what to do next where that is known.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let text = match error.chain().find_map(|cause| cause.downcast_ref::<Status>()) {
        Some(status) => crate::client::explain(error, status),
        None => error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "),
    };
    eprintln!("millrace: {text}");
    ExitCode::from(code(error))
}
