//! Refusals with `google.rpc` details (AIP-193).
//!
//! | made by | code | details beside ErrorInfo |
//! |---|---|---|
//! | [`invalid_field`] | INVALID_ARGUMENT | BadRequest |
//! | [`not_found`] | NOT_FOUND | ResourceInfo |
//! | [`failed_precondition`] | FAILED_PRECONDITION | |
//! | [`unavailable`] | UNAVAILABLE | RetryInfo |
//! | [`resource_exhausted`] | RESOURCE_EXHAUSTED | RetryInfo |
//! | [`unimplemented`] | UNIMPLEMENTED | |
//! | [`internal`] | INTERNAL | (an incident number; the cause is only in the log) |
//!
//! A handler writes `return Err(error::invalid_field("body", "BODY_NOT_UTF8", "…").into())`, or uses `?`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;

/// The domain of every ErrorInfo.
pub const DOMAIN: &str = "millrace";

/// An answer that says no: code, stable reason, a sentence for people, details for programs.
#[derive(Debug, Clone)]
#[must_use = "a rejection does nothing until it is returned as a Status"]
pub struct Rejection {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: BTreeMap<String, String>,
    violations: Vec<(String, String)>,
    retry_after: Option<Duration>,
    resource: Option<(&'static str, String)>,
}

impl Rejection {
    /// A rejection without details but its ErrorInfo. The functions of this module make the usual ones.
    ///
    /// `reason` is UPPER_SNAKE, at most 63 characters, and never changes its meaning.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(
            is_reason(reason),
            "{reason} is not UPPER_SNAKE of at most 63 characters"
        );
        Self {
            code,
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            resource: None,
        }
    }
    /// Its code, its reason, its sentence, and when to ask again: for an answer that has refusals in it and is none itself.
    pub fn told(&self) -> (Code, &'static str, &str, Option<Duration>) {
        (self.code, self.reason, &self.message, self.retry_after)
    }
    /// Repeats a value of the message for programs, in ErrorInfo's metadata.
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }
    /// Adds a violation of a field, by its path in the request.
    pub fn field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push((field.into(), description.into()));
        self
    }
    /// Says when to try again.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
    /// The stable reason.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// As tonic answers it.
    pub fn status(self) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            self.reason,
            DOMAIN,
            self.metadata.into_iter().collect::<std::collections::HashMap<_, _>>(),
        );
        for (field, description) in self.violations {
            details.add_bad_request_violation(field, description);
        }
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        if let Some((kind, name)) = self.resource {
            details.set_resource_info(kind, name, "", self.message.clone());
        }
        Status::with_error_details(self.code, self.message, details)
    }
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        rejection.status()
    }
}

fn is_reason(reason: &str) -> bool {
    (1..=63).contains(&reason.len())
        && reason.starts_with(|c: char| c.is_ascii_uppercase())
        && reason
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// A field of the request is not acceptable. The message says what would be.
pub fn invalid_field(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Rejection {
    let (field, message) = (field.into(), message.into());
    Rejection::new(Code::InvalidArgument, reason, format!("{field}: {message}"))
        .with("field", &field)
        .field(field, message)
}

/// A resource does not exist. `kind` is what it is (`document`), `name` how the caller named it.
pub fn not_found(
    kind: &'static str,
    name: impl Into<String>,
    reason: &'static str,
    message: impl Into<String>,
) -> Rejection {
    let name = name.into();
    let mut rejection = Rejection::new(Code::NotFound, reason, message).with(kind, &name);
    rejection.resource = Some((kind, name));
    rejection
}

/// The system is not in the state that the request needs; trying again alone does not help.
pub fn failed_precondition(reason: &'static str, message: impl Into<String>) -> Rejection {
    Rejection::new(Code::FailedPrecondition, reason, message)
}

/// A dependency is away or the process is leaving: safe to try again after the delay.
pub fn unavailable(reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Rejection {
    Rejection::new(Code::Unavailable, reason, message).retry_after(retry_after)
}

/// A bound is reached: a queue, a rate, a size.
pub fn resource_exhausted(reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Rejection {
    Rejection::new(Code::ResourceExhausted, reason, message).retry_after(retry_after)
}

/// The method exists in the contract and this build does not serve it.
pub fn unimplemented(reason: &'static str, message: impl Into<String>) -> Rejection {
    Rejection::new(Code::Unimplemented, reason, message)
}

/// Our own fault. The cause goes to the log under an incident number; the caller sees the number only.
pub fn internal(reason: &'static str, cause: impl Display) -> Rejection {
    let incident = Uuid::new_v4().simple().to_string();
    tracing::error!(%incident, reason, %cause, "request failed");
    let message = format!("internal error, incident {incident}: the service's log says more");
    Rejection::new(Code::Internal, reason, message).with("incident", incident)
}

/// An error with all its causes, as logs and [`internal`] want it: `a: b: c`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The reason in a status's ErrorInfo, if it came from Millrace.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == DOMAIN).then_some(info.reason)
}

/// When the answerer wants to be asked again.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// A status for people, in one line: `code: message (REASON)`.
pub fn describe(status: &Status) -> String {
    let code = status.code().description();
    match (status.message(), reason(status)) {
        ("", None) => code.to_owned(),
        (message, None) => format!("{code}: {message}"),
        ("", Some(reason)) => format!("{code} ({reason})"),
        (message, Some(reason)) => format!("{code}: {message} ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_names_domain_and_reason() {
        let second = Duration::from_secs(1);
        for (rejection, code, expected) in [
            (
                invalid_field("body", "BODY_NOT_UTF8", "x"),
                Code::InvalidArgument,
                "BODY_NOT_UTF8",
            ),
            (
                not_found("document", "t/d", "DOCUMENT_UNKNOWN", "x"),
                Code::NotFound,
                "DOCUMENT_UNKNOWN",
            ),
            (
                failed_precondition("LOG_RECREATED", "x"),
                Code::FailedPrecondition,
                "LOG_RECREATED",
            ),
            (
                unavailable("OUTCOME_UNKNOWN", "x", second),
                Code::Unavailable,
                "OUTCOME_UNKNOWN",
            ),
            (
                resource_exhausted("QUEUE_FULL", "x", second),
                Code::ResourceExhausted,
                "QUEUE_FULL",
            ),
            (unimplemented("NOT_BUILT_IN", "x"), Code::Unimplemented, "NOT_BUILT_IN"),
            (
                internal("INDEX_BROKEN", "/var/lib/secret"),
                Code::Internal,
                "INDEX_BROKEN",
            ),
        ] {
            let status = rejection.status();
            assert_eq!(status.code(), code);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.domain.as_str(), info.reason.as_str()), ("millrace", expected));
            let wants_retry = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(retry_after(&status), wants_retry.then_some(second), "{expected}");
        }
    }

    #[test]
    fn a_field_stands_in_bad_request_and_metadata() {
        let status = invalid_field("tenant", "TENANT_INVALID", "1 to 64 characters")
            .field("document_id", "empty")
            .status();
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 2);
        assert_eq!(
            (violations[0].field.as_str(), violations[0].description.as_str()),
            ("tenant", "1 to 64 characters")
        );
        assert_eq!(status.get_details_error_info().unwrap().metadata["field"], "tenant");
        assert_eq!(status.message(), "tenant: 1 to 64 characters");
    }

    #[test]
    fn not_found_says_what() {
        let resource = not_found("document", "acme/a", "DOCUMENT_UNKNOWN", "no such document")
            .status()
            .get_details_resource_info()
            .unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), resource.resource_name.as_str()),
            ("document", "acme/a")
        );
    }

    #[test]
    fn internals_stay_inside() {
        let status = internal("STORE_BROKEN", "open /var/lib/millrace/x.redb: denied").status();
        assert!(!status.message().contains("redb"), "{}", status.message());
        let incident = &status.get_details_error_info().unwrap().metadata["incident"];
        assert!(status.message().contains(incident.as_str()));
    }

    #[test]
    fn a_status_reads_in_one_line() {
        let status = unavailable("BROKER_AWAY", "the log is away", Duration::from_secs(2)).status();
        assert_eq!(
            describe(&status),
            format!("{}: the log is away (BROKER_AWAY)", Code::Unavailable.description())
        );
        assert_eq!(reason(&Status::internal("x")), None);
    }

    #[test]
    fn reasons_are_upper_snake() {
        assert!(is_reason("A") && is_reason("LOG_2_AWAY"));
        for bad in ["", "a", "A-B", "_A", "2A", &"A".repeat(64)] {
            assert!(!is_reason(bad), "{bad}");
        }
    }
}
