//! Requests to filters and orders, refusing what is not acceptable with the field's name.

use std::num::NonZeroU32;

use millrace_api::ingest::v1 as api;
use millrace_events::{DocumentId, LetterKey, LetterState, Tenant};
use millrace_rpc::error::invalid_field;
use tonic::Status;

use crate::letters::filter::Filter;
use crate::letters::job::{Action, Order};
use crate::letters::store::Mark;

const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
const MAX_KEYS: usize = 1000;
/// A letter that comes back this often is not healed by coming again.
const MAX_REDRIVES: i32 = 3;

pub fn filter(filter: Option<api::DeadLetterFilter>) -> Result<Filter, Status> {
    let filter = filter.unwrap_or_default();
    if filter.keys.len() > MAX_KEYS {
        let message = format!("at most {MAX_KEYS} keys, these are {}", filter.keys.len());
        return Err(invalid_field("filter.keys", "TOO_MANY_KEYS", message).into());
    }
    let keys = filter.keys.iter().map(|text| key("filter.keys", text));
    let states = filter.states().map(state).collect::<Result<_, _>>()?;
    if let Some(bad) = [("since_ms", filter.since_ms), ("until_ms", filter.until_ms)]
        .iter()
        .find(|(_, at_ms)| *at_ms < 0)
    {
        let field = format!("filter.{}", bad.0);
        return Err(invalid_field(field, "TIME_INVALID", "milliseconds since 1970 UTC, 0 for no bound").into());
    }
    Ok(Filter {
        tenant: given(filter.tenant.clone())
            .map(Tenant::new)
            .transpose()
            .map_err(|e| invalid_field("filter.tenant", "TENANT_INVALID", e.to_string()))?
            .map(|tenant| tenant.as_str().to_owned()),
        document_id: given(filter.document_id.clone())
            .map(DocumentId::new)
            .transpose()
            .map_err(|e| invalid_field("filter.document_id", "DOCUMENT_ID_INVALID", e.to_string()))?
            .map(|id| id.as_str().to_owned()),
        states,
        since_ms: bound(filter.since_ms),
        until_ms: bound(filter.until_ms),
        keys: keys.collect::<Result<_, _>>()?,
        stages: filter.stages.into_iter().collect(),
        reasons: filter.reasons.into_iter().collect(),
    })
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn bound(at_ms: i64) -> Option<i64> {
    (at_ms != 0).then_some(at_ms)
}

fn state(state: api::DeadLetterState) -> Result<LetterState, Status> {
    match state {
        api::DeadLetterState::Open => Ok(LetterState::Open),
        api::DeadLetterState::Redriven => Ok(LetterState::Redriven),
        api::DeadLetterState::Discarded => Ok(LetterState::Discarded),
        api::DeadLetterState::Unspecified => {
            let message = "OPEN, REDRIVEN or DISCARDED; leave the list empty for all";
            Err(invalid_field("filter.states", "STATE_INVALID", message).into())
        }
    }
}

pub fn key(field: &str, text: &str) -> Result<LetterKey, Status> {
    text.parse::<LetterKey>()
        .map_err(|e| invalid_field(field, "LETTER_KEY_INVALID", e.to_string()).into())
}

pub fn page_size(size: i32) -> Result<usize, Status> {
    match usize::try_from(size) {
        Ok(0) => Ok(PAGE),
        Ok(size) if size <= MAX_PAGE => Ok(size),
        _ => Err(invalid_field(
            "page_size",
            "PAGE_SIZE_INVALID",
            format!("1 to {MAX_PAGE}, or 0 for {PAGE}"),
        )
        .into()),
    }
}

/// A page token: a time, a colon, a key.
pub fn mark(token: &str) -> Result<Option<Mark>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = token.split_once(':').and_then(|(at_ms, key)| {
        let mark = Mark(at_ms.parse().ok()?, key.parse().ok()?);
        Some(mark)
    });
    let message = "not a next_page_token of a page before";
    let read = read.ok_or_else(|| invalid_field("page_token", "PAGE_TOKEN_INVALID", message))?;
    Ok(Some(read))
}

pub fn token(Mark(at_ms, key): &Mark) -> String {
    format!("{at_ms}:{key}")
}

pub fn redrive(request: api::RedriveDeadLettersRequest) -> Result<Order, Status> {
    let max_per_second = u32::try_from(request.max_per_second).map_err(|_| {
        let message = "letters a second, 0 for no bound";
        invalid_field("max_per_second", "RATE_INVALID", message)
    })?;
    let max_redrives = match request.max_redrives {
        0 => MAX_REDRIVES,
        given @ 1.. => given,
        _ => {
            let message = format!("1 or more, 0 for {MAX_REDRIVES}");
            return Err(invalid_field("max_redrives", "MAX_REDRIVES_INVALID", message).into());
        }
    };
    Ok(Order {
        filter: filter(request.filter)?,
        action: Action::Redrive {
            max_per_second: NonZeroU32::new(max_per_second),
            max_redrives,
        },
        dry_run: request.dry_run,
    })
}

pub fn discard(request: api::DiscardDeadLettersRequest) -> Result<Order, Status> {
    Ok(Order {
        filter: filter(request.filter)?,
        action: Action::Discard,
        dry_run: request.dry_run,
    })
}

#[cfg(test)]
mod tests {
    use millrace_rpc::error::reason;

    use super::*;

    #[test]
    fn each_field_is_refused_by_name() {
        type Change = fn(&mut api::DeadLetterFilter);
        let rows: [(Change, &str); 6] = [
            (|f| f.tenant = "a/b".into(), "TENANT_INVALID"),
            (|f| f.document_id = "a\u{1}".into(), "DOCUMENT_ID_INVALID"),
            (|f| f.keys = vec!["documents.parsed".into()], "LETTER_KEY_INVALID"),
            (|f| f.keys = vec!["t/1/2".into(); MAX_KEYS + 1], "TOO_MANY_KEYS"),
            (|f| f.states = vec![0], "STATE_INVALID"),
            (|f| f.until_ms = -1, "TIME_INVALID"),
        ];
        for (change, expected) in rows {
            let mut wanted = api::DeadLetterFilter::default();
            change(&mut wanted);
            let status = filter(Some(wanted)).unwrap_err();
            assert_eq!(reason(&status).as_deref(), Some(expected));
        }
        assert_eq!(filter(None).unwrap(), Filter::default());
        for size in [-1, 1001] {
            assert!(page_size(size).is_err(), "{size}");
        }
        assert_eq!((page_size(0).unwrap(), page_size(1000).unwrap()), (PAGE, MAX_PAGE));
    }

    #[test]
    fn a_page_token_reads_back() {
        let place = Mark(-5, LetterKey::new("documents.parsed", 3, 7).unwrap());
        assert_eq!(mark(&token(&place)).unwrap(), Some(place));
        assert_eq!(mark("").unwrap(), None);
        for bad in ["5", ":", "x:t/1/2", "5:t"] {
            assert!(mark(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_order_has_the_bounds_that_were_left_out() {
        let order = redrive(api::RedriveDeadLettersRequest::default()).unwrap();
        let expected = Action::Redrive {
            max_per_second: None,
            max_redrives: 3,
        };
        assert_eq!((order.action, order.dry_run), (expected, false));
        let bad = [(-1, 0), (0, -1)].map(|(max_per_second, max_redrives)| api::RedriveDeadLettersRequest {
            max_per_second,
            max_redrives,
            ..Default::default()
        });
        for bad in bad {
            assert!(redrive(bad).is_err());
        }
    }
}
