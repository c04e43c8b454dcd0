//! Exit codes, and how an error is shown.

use std::process::ExitCode;

use tonic::{Code, Status};

/// Part of the work failed; what failed has been shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Shown(pub String);

/// The code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    let status = error.chain().find_map(|cause| cause.downcast_ref::<Status>());
    match status.map(Status::code) {
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
