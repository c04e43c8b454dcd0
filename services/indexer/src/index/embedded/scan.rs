//! Reading a collection through, page by page in order of the points' ids.

use qdrant_edge::{EdgeShard, PointId, ScrollRequest, WithPayloadInterface};
use uuid::Uuid;

use super::errors::from_engine;
use super::{filter, payload};
use crate::index::{IndexError, Page, Scope};

pub(super) const OPERATION: &str = "read its points through";

/// One page. Texts and vectors are left where they are.
pub(super) fn page(shard: &EdgeShard, scope: &Scope, from: Option<Uuid>, limit: usize) -> Result<Page, IndexError> {
    let refused = |message: &str| IndexError::Refused {
        operation: OPERATION,
        message: message.to_owned(),
    };
    let fields = payload::STORED.iter().map(|name| name.parse());
    let fields = fields.collect::<Result<_, _>>();
    let mut request = ScrollRequest::new();
    request.offset = from.map(PointId::Uuid);
    request.limit = Some(limit);
    request.filter = filter::scope(OPERATION, scope)?;
    request.with_payload = Some(WithPayloadInterface::Fields(
        fields.map_err(|()| refused("a field is not a payload path"))?,
    ));
    let (records, next) = shard.scroll(request).map_err(from_engine(OPERATION))?;
    let next = match next {
        None => None,
        Some(PointId::Uuid(id)) => Some(id),
        Some(PointId::NumId(_)) => return Err(refused("it holds a point with a number for an id")),
    };
    let points = records
        .iter()
        .map(|record| payload::read_stored(&record.id, record.payload.as_ref()));
    Ok(Page {
        points: points.collect::<Result<_, _>>()?,
        next,
    })
}
