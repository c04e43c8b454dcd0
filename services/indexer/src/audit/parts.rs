//! Revisions on their way into the index again: their parts are found in `chunks.embedded`, and written to it once more.
//!
//! First the topic is read through for where the parts stand: only a revision that is there as a whole, of the model that is
//! served, is sent again. Then their places are read once more and copied, a batch in a transaction, byte for byte with
//! their headers and these marks behind them:
//!
//! | header | value |
//! |---|---|
//! | `millrace-revision` | the revision that the part always had |
//! | `millrace-redrive` | how often it was sent again, this time included |
//! | `millrace-restore` | `1` |
//!
//! Held in memory: the places, some 600 bytes a document of up to eleven parts and 50 for each part beyond, and one batch.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use millrace_events::headers::{REDRIVE, RESTORE, REVISION};
use millrace_events::topics;
use millrace_events::{ChunksEmbedded, DocumentKey, Epoch, Model, Revision};
use millrace_flow::{Delivery, Failure, Output};
use millrace_runtime::codec::Codec;
use millrace_runtime::partition::partition_of;

use super::judge::Live;
use super::log::{AuditLog, LogError, PartWriter, Ranges, Reading};

/// Parts in one transaction.
const BATCH: usize = 200;
/// Bytes in one transaction, about; a single part may be larger.
const BATCH_BYTES: usize = 4 << 20;

/// Why a revision cannot be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// `chunks.embedded` no longer holds all its parts.
    Parts,
    /// Its vectors are of another model than the one that is served.
    Model,
}

/// Finds and copies parts.
#[derive(Debug)]
pub struct Parts<'a, L> {
    /// The topics.
    pub log: &'a L,
    /// Reads what parts say of themselves.
    pub codec: &'a Codec,
    /// Epoch of the topics.
    pub epoch: Epoch,
}

/// What was found of one revision.
#[derive(Debug, Default)]
struct Found {
    parts: i32,
    /// By number: where it stands last, as retention takes the oldest, and how often it was sent again.
    places: BTreeMap<i32, (i64, i32)>,
    model: Option<Model>,
}

/// What a part that stands at this offset is marked with.
struct Mark {
    revision: Revision,
    redrive: i32,
}

/// By partition and offset.
type Places = BTreeMap<(i32, i64), Mark>;

impl<L: AuditLog> Parts<'_, L> {
    /// Sends revisions again; says which could not be, and why. `told` is given the number of parts written so far.
    pub async fn send(
        &self,
        wanted: &BTreeMap<DocumentKey, Live>,
        serving: Option<&Model>,
        writer: &L::Writer,
        mut told: impl FnMut(usize),
    ) -> Result<HashMap<DocumentKey, Lost>, LogError> {
        let mut found = self.find(wanted).await?;
        let (mut places, mut lost) = (Places::new(), HashMap::new());
        for (document, live) in wanted {
            let found = found.remove(document).unwrap_or_default();
            match found.check(serving) {
                Some(why) => _ = lost.insert(document.clone(), why),
                None => places.extend(found.places.into_values().map(|(offset, redrives)| {
                    let mark = Mark {
                        revision: live.revision,
                        redrive: redrives + 1,
                    };
                    ((partition_of(document), offset), mark)
                })),
            }
        }
        self.copy(places, writer, &mut told).await?;
        Ok(lost)
    }

    async fn find(&self, wanted: &BTreeMap<DocumentKey, Live>) -> Result<HashMap<DocumentKey, Found>, LogError> {
        let ends = self.log.ranges(topics::EMBEDDED).await?;
        let partitions: BTreeSet<i32> = wanted.keys().map(partition_of).collect();
        let (ends, starts) = only(ends, |partition| partitions.contains(&partition).then_some(0));
        let mut reading = Reading::begin(self.log, topics::EMBEDDED, starts)?;
        let mut found: HashMap<DocumentKey, Found> = HashMap::new();
        while let Some(delivery) = reading.next_below(&ends).await? {
            let key = delivery
                .key
                .as_deref()
                .and_then(|key| DocumentKey::from_bytes(key).ok());
            let live = key.as_ref().and_then(|key| wanted.get(key));
            let (Some(key), Some(live), Some(value)) = (key, live, delivery.value.as_deref()) else {
                continue;
            };
            match self.codec.decode::<ChunksEmbedded>(value).await {
                Ok(part) if part.checked_revision() == Ok(live.revision) => {
                    found.entry(key).or_default().take(part, &delivery);
                }
                // Of another revision, or unreadable: that one was buried when it came first.
                Ok(_) | Err(Failure::Invalid { .. } | Failure::Failed { .. }) => {}
                Err(failure) => return Err(LogError::Away(failure.to_string())),
            }
        }
        Ok(found)
    }

    async fn copy(&self, mut places: Places, writer: &L::Writer, told: &mut impl FnMut(usize)) -> Result<(), LogError> {
        let first = |partition| {
            let from = places.range((partition, 0)..).next();
            from.map(|((found, offset), _)| (*found, *offset))
                .filter(|(found, _)| *found == partition)
                .map(|(_, offset)| offset)
        };
        let (ends, starts) = only(self.log.ranges(topics::EMBEDDED).await?, first);
        let mut reading = Reading::begin(self.log, topics::EMBEDDED, starts)?;
        let (mut batch, mut bytes, mut sent) = (Vec::new(), 0, 0);
        while !places.is_empty()
            && let Some(delivery) = reading.next_below(&ends).await?
        {
            let place = (delivery.origin.partition, delivery.origin.offset);
            let Some(output) = places.remove(&place).and_then(|mark| self.again(delivery, &mark)) else {
                continue;
            };
            bytes += output.size_bytes();
            batch.push(output);
            if batch.len() >= BATCH || bytes >= BATCH_BYTES || places.is_empty() {
                sent += batch.len();
                writer.write(std::mem::take(&mut batch)).await?;
                bytes = 0;
                told(sent);
            }
        }
        // What retention took between the two readings stays missing: the next look finds it.
        match batch.is_empty() {
            true => Ok(()),
            false => writer.write(batch).await,
        }
    }

    fn again(&self, delivery: Delivery, mark: &Mark) -> Option<Output> {
        let mut headers = delivery.headers;
        let marks = [REVISION, REDRIVE, RESTORE];
        headers.0.retain(|(name, _)| !marks.contains(&name.as_str()));
        headers.push(REVISION, mark.revision.to_string());
        headers.push(REDRIVE, mark.redrive.to_string());
        headers.push(RESTORE, Bytes::from_static(b"1"));
        Some(Output {
            topic: topics::EMBEDDED.in_epoch(self.epoch),
            partition: Some(delivery.origin.partition),
            key: delivery.key?,
            value: delivery.value,
            headers,
        })
    }
}

impl Found {
    fn take(&mut self, part: ChunksEmbedded, delivery: &Delivery) {
        let redrives = delivery.headers.get_str(REDRIVE).and_then(|n| n.parse().ok());
        let place = self.places.entry(part.part).or_default();
        *place = (delivery.origin.offset, place.1.max(redrives.unwrap_or(0)));
        self.parts = part.parts;
        self.model = Some(part.model);
    }

    fn check(&self, serving: Option<&Model>) -> Option<Lost> {
        let whole = self.parts > 0 && (0..self.parts).all(|part| self.places.contains_key(&part));
        let served = |model: &Model| serving.is_none_or(|serving| serving == model);
        match &self.model {
            Some(model) if whole && served(model) => None,
            Some(_) if whole => Some(Lost::Model),
            _ => Some(Lost::Parts),
        }
    }
}

/// Where to read from and to, if only some partitions matter: the others are begun at their ends.
fn only(ranges: Ranges, wanted: impl Fn(i32) -> Option<i64>) -> (Ranges, BTreeMap<i32, i64>) {
    let starts = ranges.iter().map(|(partition, (first, end))| {
        let start = wanted(*partition).map_or(*end, |from| from.max(*first));
        (*partition, start)
    });
    let starts = starts.collect();
    let ends = ranges.into_iter().filter(|(partition, _)| wanted(*partition).is_some());
    (ends.collect(), starts)
}

#[cfg(test)]
mod tests {
    use millrace_flow::{Headers, Origin};

    use super::*;

    /// Retention goes on between the two readings.
    #[test]
    fn the_latest_copy_of_a_part_is_the_one_that_is_sent_again() {
        let mut found = Found::default();
        for (offset, redrives) in [(3, "none"), (7, "2"), (9, "1")] {
            let mut headers = Headers::default();
            headers.push(REDRIVE, redrives);
            let delivery = Delivery {
                origin: Origin {
                    topic: "chunks.embedded".into(),
                    partition: 0,
                    offset,
                },
                key: None,
                value: None,
                headers,
                timestamp_ms: 0,
                attempt: 1,
                span: Default::default(),
            };
            found.take(ChunksEmbedded::default(), &delivery);
        }
        assert_eq!(found.places[&0], (9, 2));
    }
}
