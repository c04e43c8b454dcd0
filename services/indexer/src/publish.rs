//! How a revision becomes searchable: the write side of the heads.
//!
//! The runtime hands over the parts of one document one after another, each at least once, and commits what a part
//! announces together with its position. So a part may come again after a crash, with any later ones of the window; a
//! part that is committed never does. From the stored head and the count alone, each row below says what a part does:
//!
//! | # | stored head | this part | the index afterwards | announces |
//! |---|---|---|---|---|
//! | 1 | `live` > revision | any | unchanged | superseded |
//! | 2 | `live` = revision, moved by this very part | any: a replay | unchanged, durable | live (or deleted), again |
//! | 3 | `live` = revision, moved by another part | any: a replay | unchanged, durable | nothing: the other part does |
//! | 4 | none or `live` < revision | leaves the count short | its points, hidden, durable | nothing yet |
//! | 5 | none or `live` < revision | fills the count | points shown, head moved, durable | live |
//! | 6 | none or `live` < revision | no chunks in the revision | head moved, durable | live, 0 chunks |
//! | 7 | none or `live` < revision | a delete | head moved with `deleted`, durable | deleted |
//! | 8 | as 4 to 7, but meanwhile moved past by another process | any | clean-up asked for again | superseded |
//! | 9 | any | more points than the revision has | unchanged | refused: invalid |
//!
//! **Once per revision.** The head remembers the part that moved it (rows 2 and 3). Were it not there: parts 0 and 1
//! done and both replayed, part 0 would find the count full and announce, and part 1 again. Asking for the *last* part
//! instead would never announce a revision whose earlier part was redriven and came last. A crash between the points
//! and the head is row 5 on replay: whichever uncommitted part comes first then moves the head and is the one that
//! announces; there is always one, as the part that was running is not committed.
//!
//! **Why rows 1 to 3 write nothing.** A replayed part would mark points of a live revision `staged` again and take
//! them away from searches.
//!
//! **What an audit sends again** ([`Publisher::restore`]) is a part of a revision that the log already tells as live: it was
//! announced, so nothing is announced again.
//!
//! | # | stored head | a part sent again | the index afterwards |
//! |---|---|---|---|
//! | 10 | `live` > revision, or `live` = revision and deleted | any | unchanged: what came since counts |
//! | 11 | `live` = revision | any | its points shown, durable |
//! | 12 | none or `live` < revision | any | as rows 4 to 9 |
//!
//! Older points are left to [`crate::sweep`]: searches that began before the head moved still want them.

use std::sync::Arc;

use millrace_events::{DocumentKey, Revision};
use millrace_failpoints::{mutants, points};
use millrace_telemetry::{Kind, names, span};

use crate::index::{ChunkPoint, Head, IndexError, RevisionPoints, VectorIndex};

/// One part of a revision, checked: see [`Part::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The document.
    pub document: DocumentKey,
    /// The revision.
    pub revision: Revision,
    /// This part's number, from 0.
    pub part: i32,
    /// How many there are.
    pub parts: i32,
    /// What it brings.
    pub content: Content,
}

/// What a part brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The document is to be deleted.
    Delete,
    /// Chunks.
    Chunks {
        /// Chunks of the whole revision.
        chunk_count: u32,
        /// Those of this part.
        points: Vec<ChunkPoint>,
    },
}

/// What a part announces once the index holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The revision is searchable.
    Live {
        /// Its chunks.
        chunk_count: u32,
    },
    /// The document is no longer found.
    Deleted,
    /// A greater revision is live; this one changed nothing that a search sees.
    Superseded {
        /// The live one.
        by: Revision,
    },
    /// Nothing: other parts are missing still, or the one that completed the revision announces it.
    Nothing,
}

/// Why a part was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The part contradicts itself or the index.
    #[error("{0}")]
    Invalid(String),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The head was written and another one stands there: the engine broke its promise.
    #[error("the head of {document} at revision {revision} was written, but the index holds {found}")]
    HeadLost {
        /// The document.
        document: DocumentKey,
        /// The revision.
        revision: Revision,
        /// What is there.
        found: String,
    },
}

impl Part {
    /// Refuses what can never be published: numbers that contradict each other, vectors of a wrong size or not finite.
    pub fn check(&self, dimensions: i32) -> Result<(), PublishError> {
        let invalid = |message: String| Err(PublishError::Invalid(message));
        let (part, parts) = (self.part, self.parts);
        if parts < 1 || !(0..parts).contains(&part) {
            return invalid(format!("part {part} of {parts}: a part is 0 to one less than parts"));
        }
        let Content::Chunks { chunk_count, points } = &self.content else {
            return if parts == 1 {
                Ok(())
            } else {
                invalid(format!("a delete is one part, this one says {parts}"))
            };
        };
        let (here, all) = (points.len(), *chunk_count as usize);
        if here > all || (parts == 1 && here != all) || (parts > 1 && here == 0) {
            return invalid(format!(
                "part {part} of {parts} holds {here} chunks of a revision of {all}"
            ));
        }
        let mut ordinals: Vec<i32> = points.iter().map(|p| p.ordinal).collect();
        ordinals.sort_unstable();
        let in_range = ordinals.iter().all(|o| usize::try_from(*o).is_ok_and(|o| o < all));
        if !in_range || ordinals.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid(format!(
                "ordinals {ordinals:?} of a revision of {all} chunks: one is repeated or too large"
            ));
        }
        for point in points {
            let size = point.vector.len();
            if usize::try_from(dimensions).ok() != Some(size) {
                return invalid(format!(
                    "chunk {} has a vector of {size} values, not {dimensions}",
                    point.ordinal
                ));
            }
            if !point.vector.iter().all(|v| v.is_finite()) {
                return invalid(format!(
                    "the vector of chunk {} has a value that is not finite",
                    point.ordinal
                ));
            }
        }
        Ok(())
    }

    fn staged(&self) -> bool {
        self.parts > 1
    }
}

/// Publishes parts into one collection. The caller hands over the parts of one document one after another.
#[derive(Clone)]
pub struct Publisher {
    index: Arc<dyn VectorIndex>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// Publishes into `index`.
    pub fn new(index: Arc<dyn VectorIndex>) -> Self {
        Self { index }
    }

    /// Brings a checked part into the index. What it answers with may be announced: it is durable.
    pub async fn publish(&self, part: Part, now_ms: i64) -> Result<Published, PublishError> {
        let stored = self.head(&part.document).await?;
        match &stored {
            Some(head) if head.live >= part.revision && !moves_back(head, &part) => self.already(head, &part).await,
            _ => self.bring(part, stored, now_ms).await,
        }
    }

    /// Brings a checked part of a revision that was announced before into the index again: rows 10 to 12.
    pub async fn restore(&self, part: Part, now_ms: i64) -> Result<(), PublishError> {
        let stored = self.head(&part.document).await?;
        match &stored {
            Some(head) if head.live > part.revision || (head.live == part.revision && head.deleted) => Ok(()),
            Some(head) if head.live == part.revision => self.show(part).await,
            _ => self.bring(part, stored, now_ms).await.map(|_| ()),
        }
    }

    /// Row 11.
    async fn show(&self, part: Part) -> Result<(), PublishError> {
        if let Content::Chunks { points, .. } = part.content {
            let points = RevisionPoints {
                document: part.document,
                revision: part.revision,
                staged: false,
                points,
            };
            self.index.write(points).await?;
            self.index.flush().await?;
        }
        Ok(())
    }

    /// Rows 4 to 9.
    async fn bring(&self, part: Part, stored: Option<Head>, now_ms: i64) -> Result<Published, PublishError> {
        let staged = part.staged();
        let Part {
            document,
            revision,
            part,
            parts,
            content,
        } = part;
        let (deleted, chunk_count) = match content {
            Content::Delete => (true, 0),
            Content::Chunks { chunk_count: 0, .. } => (false, 0),
            Content::Chunks { chunk_count, points } => {
                let points = RevisionPoints {
                    document: document.clone(),
                    revision,
                    staged,
                    points,
                };
                self.index.write(points).await?;
                points::POINTS_WRITTEN.reached();
                if staged && mutants::SWITCH_AT_LAST_PART.is_active() && part + 1 == parts {
                    self.index.unstage(document.clone(), revision).await?;
                } else if staged && !self.complete(&document, revision, chunk_count).await? {
                    self.index.flush().await?;
                    points::PART_FLUSHED.reached();
                    return Ok(Published::Nothing);
                }
                (false, chunk_count)
            }
        };
        let head = Head {
            live: revision,
            previous: stored.map(|head| head.live),
            deleted,
            sweep: true,
            chunk_count,
            part,
            moved_at_ms: now_ms,
        };
        if mutants::STATUS_BEFORE_HEAD.is_active() {
            let (publisher, announced) = (self.clone(), announced(&head));
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                publisher.move_head(document, head).await
            });
            return Ok(announced);
        }
        self.move_head(document, head).await
    }

    /// Rows 1 to 3.
    async fn already(&self, head: &Head, part: &Part) -> Result<Published, PublishError> {
        if head.live > part.revision {
            return Ok(Published::Superseded { by: head.live });
        }
        // The process may have died between the head and the flush.
        self.index.flush().await?;
        points::REPLAY_FLUSHED.reached();
        if head.part != part.part {
            return Ok(Published::Nothing);
        }
        searchable(&part.document, head.live);
        Ok(announced(head))
    }

    /// Rows 4, 5 and 9: whether all points are there; then shows them.
    async fn complete(&self, of: &DocumentKey, revision: Revision, chunk_count: u32) -> Result<bool, PublishError> {
        let count = self.index.count(of.clone(), revision).await?;
        match count.cmp(&u64::from(chunk_count)) {
            std::cmp::Ordering::Less => Ok(false),
            std::cmp::Ordering::Equal => {
                self.index.unstage(of.clone(), revision).await?;
                points::POINTS_SHOWN.reached();
                Ok(true)
            }
            std::cmp::Ordering::Greater => Err(PublishError::Invalid(format!(
                "{of} at revision {revision} has {count} points in the index, but its parts say {chunk_count}: they \
                 were not cut from the same text"
            ))),
        }
    }

    async fn move_head(&self, document: DocumentKey, head: Head) -> Result<Published, PublishError> {
        self.index.move_head(document.clone(), head.clone()).await?;
        points::HEAD_MOVED.reached();
        // Read back: the write is conditional, another process may have been faster.
        let found = self.head(&document).await?;
        match found {
            Some(found) if found.live > head.live => {
                // Row 8. What was just written may lie below a clean-up that is over: ask for another one.
                self.index.mark_sweep(document, found.live, true).await?;
                self.index.flush().await?;
                Ok(Published::Superseded { by: found.live })
            }
            Some(found) if found.live == head.live => {
                self.index.flush().await?;
                points::HEAD_FLUSHED.reached();
                searchable(&document, head.live);
                if found.part == head.part {
                    Ok(announced(&found))
                } else {
                    Ok(Published::Nothing)
                }
            }
            found => Err(PublishError::HeadLost {
                document,
                revision: head.live,
                found: found.map_or_else(|| "none".into(), |head| format!("revision {}", head.live)),
            }),
        }
    }

    async fn head(&self, document: &DocumentKey) -> Result<Option<Head>, IndexError> {
        let mut heads = self.index.heads(vec![document.clone()]).await?;
        Ok(heads.remove(document))
    }
}

/// The moment from which every search sees the revision, or no longer sees the document.
fn searchable(document: &DocumentKey, revision: Revision) {
    let moment = span(Kind::Internal, || "searchable").with(|| {
        [
            (names::DOCUMENT, document.to_string().into()),
            (names::REVISION, revision.get().into()),
        ]
    });
    // A moment: it ends as it begins.
    moment.start_here();
}

fn moves_back(head: &Head, part: &Part) -> bool {
    mutants::HEAD_UNCONDITIONAL.is_active() && head.live > part.revision
}

fn announced(head: &Head) -> Published {
    if head.deleted {
        Published::Deleted
    } else {
        Published::Live {
            chunk_count: head.chunk_count,
        }
    }
}
