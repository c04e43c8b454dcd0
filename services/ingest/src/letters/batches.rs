//! Letters on their way into the log: batches, at the pace asked for.

use std::num::NonZeroU32;
use std::time::Duration;

use millrace_failpoints::points;
use millrace_flow::Output;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::LetterError;
use super::log::{LetterWriter, LogError};
use super::progress::Progress;
use super::skip::Skip;

/// Letters in one transaction.
const BATCH: usize = 200;
/// Bytes in one transaction, about; a single letter may be larger.
const BATCH_BYTES: usize = 4 << 20;

/// What is written of a letter.
#[derive(Debug)]
pub struct Change {
    /// Re-enters its stage; none of a letter that is discarded.
    pub original: Option<Output>,
    /// Its new state.
    pub state: Output,
}

impl Change {
    fn size_bytes(&self) -> usize {
        self.state.size_bytes() + self.original.as_ref().map_or(0, Output::size_bytes)
    }
}

/// What waits to be written.
#[derive(Debug)]
pub struct Batches<W> {
    /// None in a dry run.
    writer: Option<W>,
    pace: Pace,
    changes: Vec<Change>,
    bytes: usize,
}

impl<W: LetterWriter> Batches<W> {
    /// Without a writer, what would be written is counted.
    pub fn new(writer: Option<W>, pace: Pace) -> Self {
        Self {
            writer,
            pace,
            changes: Vec::new(),
            bytes: 0,
        }
    }

    /// Writes when there is enough for a batch.
    pub async fn add(&mut self, change: Change, progress: &watch::Sender<Progress>) -> Result<(), LetterError> {
        self.bytes += change.size_bytes();
        self.changes.push(change);
        if self.changes.len() >= self.pace.batch() || self.bytes >= BATCH_BYTES {
            self.write(progress).await?;
        }
        Ok(())
    }

    /// Writes what waits. A batch that is refused is halved until the record that is refused stands alone: that letter is passed over.
    pub async fn write(&mut self, progress: &watch::Sender<Progress>) -> Result<(), LetterError> {
        self.bytes = 0;
        let mut batches = vec![std::mem::take(&mut self.changes)];
        while let Some(mut batch) = batches.pop() {
            let letters = batch.len() as u64;
            let written = match &self.writer {
                Some(writer) if letters > 0 => {
                    self.pace.wait(letters).await;
                    let originals = batch.iter().flat_map(|change| change.original.clone());
                    let states = batch.iter().map(|change| change.state.clone());
                    writer.write(originals.chain(states).collect()).await
                }
                _ => Ok(()),
            };
            match written {
                Ok(()) => {
                    points::REDRIVE_WRITTEN.reached();
                    progress.send_modify(|progress| progress.done += letters);
                }
                Err(LogError::Refused(why)) if letters == 1 => {
                    tracing::warn!(why, "a dead letter is passed over: the log refuses it");
                    progress.send_modify(|progress| progress.skip(Skip::Refused, 1));
                }
                Err(LogError::Refused(_)) => {
                    let later = batch.split_off(batch.len() / 2);
                    batches.extend([later, batch]);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// So many letters a second.
#[derive(Debug)]
pub struct Pace {
    per_second: Option<NonZeroU32>,
    /// When the next batch may be written.
    next: Instant,
}

impl Pace {
    /// None is no bound.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        Self {
            per_second,
            next: Instant::now(),
        }
    }

    /// Letters in a batch: a second's at most, so that the pace is even.
    fn batch(&self) -> usize {
        let second = self.per_second.and_then(|n| usize::try_from(n.get()).ok());
        second.map_or(BATCH, |second| second.min(BATCH))
    }

    /// Returns when so many more may be written.
    async fn wait(&mut self, letters: u64) {
        let Some(per_second) = self.per_second else {
            return;
        };
        sleep_until(self.next).await;
        let takes = Duration::from_secs_f64(letters as f64 / f64::from(per_second.get()));
        self.next = Instant::now() + takes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_leave_in_a_second_than_asked_for() {
        let mut pace = Pace::new(NonZeroU32::new(50));
        assert_eq!(pace.batch(), 50);
        let begun = Instant::now();
        for _ in 0..4 {
            pace.wait(50).await;
        }
        assert_eq!(begun.elapsed().as_secs(), 3);
        assert_eq!(Pace::new(None).batch(), BATCH);
    }
}
