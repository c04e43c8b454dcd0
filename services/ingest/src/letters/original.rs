//! A letter of `documents.dlq` and the record that was given up.
//!
//! Its headers are the original's, and from the last `failure_reason` on those of whoever gave it up. An original that was
//! redriven ends with the marks of that redrive; the next one has its own in their place:
//!
//! | header | value |
//! |---|---|
//! | `millrace-revision` | the revision that the record always had |
//! | `millrace-redrive` | how often it was redriven, this time included |
//! | `millrace-origin` | where the record first stood |
//! | `millrace-first-failed-at-ms` | when it was first given up |
//! | `millrace-original-timestamp-ms` | the record's own timestamp |

use bytes::Bytes;
use millrace_events::headers::{
    FAILURE_REASON, FIRST_FAILED_AT_MS, KEY_ABSENT, LANE, ORIGIN, ORIGINAL_OMITTED, ORIGINAL_TIMESTAMP_MS, REDRIVE,
    REVISION,
};
use millrace_events::{DeadLetter, DocumentKey, Lane, LetterKey, topics};
use millrace_flow::{Delivery, Headers, Output};
use millrace_runtime::partition::partition_of;

use super::skip::{Skip, input_of};
use crate::EPOCH;
use crate::pipeline::lanes::LaneConfig;

/// The marks of a redrive, in the order in which they are written.
const MARKS: [&str; 5] = [REVISION, REDRIVE, ORIGIN, FIRST_FAILED_AT_MS, ORIGINAL_TIMESTAMP_MS];

type Header = (String, Option<Bytes>);

/// The original's headers, marks of an earlier redrive among them, and those of whoever gave it up.
pub fn headers(letter: &Delivery) -> (&[Header], &[Header]) {
    let all = &letter.headers.0;
    let ours = all.iter().rposition(|(name, _)| name == FAILURE_REASON);
    all.split_at(ours.unwrap_or(all.len()))
}

fn text<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().rev().find(|(found, _)| found == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

/// Key of the letter's state; none of what is no letter.
pub fn origin(letter: &Delivery) -> Option<LetterKey> {
    text(headers(letter).1, ORIGIN)?.parse().ok()
}

/// How often the record had been redriven when it was given up, as its state counts it.
pub fn redrives(letter: &Delivery) -> i32 {
    let redrives = text(headers(letter).0, REDRIVE);
    redrives.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Whether the original's key, value and headers were left out.
pub fn is_omitted(letter: &Delivery) -> bool {
    text(headers(letter).1, ORIGINAL_OMITTED).is_some()
}

/// The record that re-enters its stage: the original with the marks of this redrive, on its document's partition.
pub fn redriven(letter: &Delivery, state: &DeadLetter, lanes: &LaneConfig) -> Result<Output, Skip> {
    let (original, ours) = headers(letter);
    if is_omitted(letter) {
        return Err(Skip::OriginalOmitted);
    }
    let key = letter.key.clone().filter(|_| text(ours, KEY_ABSENT).is_none());
    let key = key.ok_or(Skip::KeyAbsent)?;
    let topic = input_of(&state.stage).ok_or(Skip::StageUnknown)?;
    let lane = lane(original);
    if topic == topics::PARSED && !lanes.has(&lane) {
        return Err(Skip::LaneUnknown);
    }
    let document = DocumentKey::new(state.tenant.as_str(), state.document_id.as_str());
    let timestamp_ms = text(ours, ORIGINAL_TIMESTAMP_MS).map_or_else(|| letter.timestamp_ms.to_string(), str::to_owned);
    let mut headers = Headers(without_marks(original).to_vec());
    headers.push(REVISION, state.revision.to_string());
    headers.push(REDRIVE, (state.redrives + 1).to_string());
    headers.push(ORIGIN, text(ours, ORIGIN).unwrap_or_default().to_owned());
    headers.push(FIRST_FAILED_AT_MS, state.failed_at_ms.to_string());
    headers.push(ORIGINAL_TIMESTAMP_MS, timestamp_ms);
    Ok(Output {
        topic: match topic == topics::PARSED {
            true => topic.in_lane(&lane, EPOCH),
            false => topic.in_epoch(EPOCH),
        },
        // What stood under another key belongs to its document all the same.
        partition: document.ok().as_ref().map(partition_of),
        key,
        value: letter.value.clone(),
        headers,
    })
}

/// The lane of the topic in which it stood.
fn lane(original: &[Header]) -> Lane {
    let lane = text(original, LANE).and_then(|name| Lane::new(name).ok());
    lane.unwrap_or_default()
}

/// Without the marks that an earlier redrive put behind the headers.
fn without_marks(headers: &[Header]) -> &[Header] {
    match headers.split_last_chunk::<{ MARKS.len() }>() {
        Some((before, last)) if last.iter().map(|(name, _)| name.as_str()).eq(MARKS) => before,
        _ => headers,
    }
}

#[cfg(test)]
#[path = "original_tests.rs"]
mod tests;
