//! What the index holds: all of it in one scan, or of some documents with care.

use std::collections::HashMap;

use millrace_events::DocumentKey;

use super::judge::{HeadSeen, Seen};
use super::{AuditError, MAX_DOCUMENTS};
use crate::index::{Head, IndexError, Scope, Stored, VectorIndex};

const PAGE: usize = 4096;
/// Documents whose heads are read together. Few: their points must be read before a clean-up may have passed.
const TOGETHER: usize = 128;

/// By document.
pub type Sight = HashMap<DocumentKey, Seen>;

impl From<&Head> for HeadSeen {
    fn from(head: &Head) -> Self {
        Self {
            live: head.live,
            deleted: head.deleted,
            sweep: head.sweep,
        }
    }
}

/// Everything, while it changes: good for suspicions. `told` is given the number of points now and then.
pub async fn through(index: &dyn VectorIndex, scope: &Scope, mut told: impl FnMut(usize)) -> Result<Sight, AuditError> {
    let (mut sight, mut from, mut points) = (Sight::new(), None, 0);
    loop {
        let page = index.scan(scope.clone(), from, PAGE).await?;
        points += page.points.len();
        for point in page.points {
            match point {
                Stored::Head(document, head) => sight.entry(document).or_default().head = Some((&head).into()),
                chunk @ Stored::Chunk { .. } => count(&mut sight, chunk),
            }
        }
        if sight.len() > MAX_DOCUMENTS {
            return Err(AuditError::TooMany);
        }
        told(points);
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(sight),
        }
    }
}

/// Some documents, each with its head first and its points after it, as [`super::judge`] wants it.
pub async fn closely(index: &dyn VectorIndex, documents: &[DocumentKey]) -> Result<Sight, IndexError> {
    let mut sight = Sight::with_capacity(documents.len());
    for some in documents.chunks(TOGETHER) {
        for (document, head) in index.heads(some.to_vec()).await? {
            sight.entry(document).or_default().head = Some((&head).into());
        }
        let scope = Scope {
            tenant: None,
            documents: some.to_vec(),
        };
        let mut from = None;
        loop {
            let page = index.scan(scope.clone(), from, PAGE).await?;
            let chunks = page.points.into_iter();
            chunks
                .filter(|point| matches!(point, Stored::Chunk { .. }))
                .for_each(|chunk| count(&mut sight, chunk));
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
    }
    Ok(sight)
}

fn count(sight: &mut Sight, chunk: Stored) {
    if let Stored::Chunk {
        document,
        revision,
        ordinal,
        staged,
    } = chunk
    {
        sight.entry(document).or_default().count(revision, ordinal, staged);
    }
}
