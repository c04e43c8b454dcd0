//! Answers and refusals as the contract has them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use millrace_api::ingest::v1 as api;
use millrace_events::LetterState;
use millrace_flow::{Delivery, Failure};
use millrace_rpc::error::{Rejection, chain, failed_precondition, internal, not_found, unavailable};
use tonic::{Code, Status};

use super::request::token;
use crate::letters::LetterError;
use crate::letters::log::LogError;
use crate::letters::original;
use crate::letters::progress::Progress;
use crate::letters::skip::Skip;
use crate::letters::store::{Count, Letter, Page};

const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(2);

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub fn letter(letter: Letter) -> api::DeadLetter {
    let trace = letter.trace();
    let record = letter.record;
    let mut answer = api::DeadLetter {
        key: record.key().map(|key| key.to_string()).unwrap_or_default(),
        tenant: record.tenant,
        document_id: record.document_id,
        revision: record.revision,
        redrives: record.redrives,
        stage: record.stage,
        reason: record.reason,
        message: record.message,
        attempts: record.attempts,
        accepted_at_ms: record.accepted_at_ms,
        failed_at_ms: record.failed_at_ms,
        updated_at_ms: record.updated_at_ms,
        trace_id: trace.map(|trace| trace.trace_id().to_owned()).unwrap_or_default(),
        ..api::DeadLetter::default()
    };
    answer.set_state(state(record.state));
    answer
}

fn state(state: LetterState) -> api::DeadLetterState {
    match state {
        LetterState::Open => api::DeadLetterState::Open,
        LetterState::Redriven => api::DeadLetterState::Redriven,
        LetterState::Discarded => api::DeadLetterState::Discarded,
        LetterState::Unknown => api::DeadLetterState::Unspecified,
    }
}

pub fn page(page: Page) -> api::ListDeadLettersResponse {
    api::ListDeadLettersResponse {
        letters: page.letters.into_iter().map(letter).collect(),
        next_page_token: page.next.as_ref().map(token).unwrap_or_default(),
    }
}

pub fn count(count: Count) -> api::DeadLetterCount {
    let mut answer = api::DeadLetterCount {
        stage: count.stage,
        reason: count.reason,
        letters: number(count.letters),
        first_failed_at_ms: count.first_failed_at_ms,
        last_failed_at_ms: count.last_failed_at_ms,
        ..api::DeadLetterCount::default()
    };
    answer.set_state(state(count.state));
    answer
}

pub fn original(buried: &Delivery, with_bytes: bool) -> api::DeadLetterOriginal {
    let (theirs, ours) = original::headers(buried);
    let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as i64);
    let shown = |bytes: &Option<Bytes>| match bytes {
        Some(bytes) if with_bytes => bytes.to_vec(),
        _ => Vec::new(),
    };
    api::DeadLetterOriginal {
        key_bytes: size(&buried.key),
        value_bytes: size(&buried.value),
        value_absent: buried.value.is_none(),
        headers: headers(theirs),
        error_headers: headers(ours),
        key: shown(&buried.key),
        value: shown(&buried.value),
        partition: buried.origin.partition,
        offset: buried.origin.offset,
    }
}

fn headers(headers: &[(String, Option<Bytes>)]) -> Vec<api::RecordHeader> {
    let header = |(name, value): &(String, Option<Bytes>)| api::RecordHeader {
        name: name.clone(),
        value: value.as_ref().map(|value| value.to_vec()),
    };
    headers.iter().map(header).collect()
}

pub fn redriven(told: Progress) -> api::RedriveDeadLettersResponse {
    api::RedriveDeadLettersResponse {
        matched: number(told.matched),
        redriven: number(told.done),
        skipped: skipped(&told.skipped),
        done: told.finished,
    }
}

pub fn discarded(told: Progress) -> api::DiscardDeadLettersResponse {
    api::DiscardDeadLettersResponse {
        matched: number(told.matched),
        discarded: number(told.done),
        skipped: skipped(&told.skipped),
        done: told.finished,
    }
}

fn skipped(skipped: &BTreeMap<Skip, u64>) -> Vec<api::SkippedLetters> {
    let answer = |(skip, letters): (&Skip, &u64)| api::SkippedLetters {
        reason: reason(*skip).into(),
        letters: number(*letters),
    };
    skipped.iter().map(answer).collect()
}

fn reason(skip: Skip) -> api::SkipReason {
    match skip {
        Skip::NotOpen => api::SkipReason::NotOpen,
        Skip::RedrivenTooOften => api::SkipReason::RedrivenTooOften,
        Skip::TooOld => api::SkipReason::TooOld,
        Skip::RevisionUnknown => api::SkipReason::RevisionUnknown,
        Skip::StageUnknown => api::SkipReason::StageUnknown,
        Skip::OriginalOmitted => api::SkipReason::OriginalOmitted,
        Skip::OriginalGone => api::SkipReason::OriginalGone,
        Skip::KeyAbsent => api::SkipReason::KeyAbsent,
        Skip::Refused => api::SkipReason::Refused,
        Skip::LaneUnknown => api::SkipReason::LaneUnknown,
    }
}

pub fn refused(error: LetterError) -> Status {
    rejection(&error).into()
}

fn rejection(error: &LetterError) -> Rejection {
    match error {
        LetterError::Unknown(key) => not_found("dead letter", key.to_string(), "LETTER_UNKNOWN", error.to_string()),
        LetterError::Behind => unavailable("LETTER_REPLICA_BEHIND", error.to_string(), LATER),
        LetterError::Replica(_) => internal("LETTER_REPLICA_FAILED", chain(error)),
        LetterError::Log(LogError::TakenOver(cause)) => {
            tracing::warn!(cause, "a job of dead letters was taken over");
            let message = "another redrive or discard took over, or Kafka was away for longer than a transaction may \
                           last: what was done stands, call again to go on";
            Rejection::new(Code::Aborted, "TAKEN_OVER", message)
        }
        LetterError::Log(LogError::Away(cause)) => {
            tracing::warn!(cause, "the topics of dead letters are away");
            let message = "the log is away: what was done stands, call again to go on";
            unavailable("LOG_UNAVAILABLE", message, LATER)
        }
        LetterError::Log(LogError::Refused(_)) => internal("LOG_REFUSED", chain(error)),
        LetterError::Encode(Failure::Transient { reason, message }) => {
            tracing::warn!(reason, message, "the state of a dead letter cannot be encoded yet");
            unavailable(reason, "the service is not ready to change dead letters", LATER)
        }
        LetterError::Encode(_) => internal("ENCODING_FAILED", chain(error)),
        LetterError::TooMany { max } => failed_precondition("TOO_MANY_LETTERS", error.to_string()).with("max", max),
        LetterError::Leaving => unavailable("DRAINING", error.to_string(), SOON),
    }
}
