//! Concurrent flushes share one: a flush that starts after a call came in serves that call.
//!
//! A flush waits its turn among the writers, in order. Were it to begin as soon as the last one ends, it would shut the
//! engine's lock again before the writes that waited behind it, and each flush would serve one document (250
//! documents, 64 at once, took 39 s so and 5 s in turn, in the dev profile).

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::index::IndexError;

#[derive(Debug, Default)]
pub struct Flushes {
    asked: AtomicU64,
    /// Every call up to this one is durable. Held while a flush waits and runs.
    done: Mutex<u64>,
}

impl Flushes {
    /// Answers when a flush that started after this call has ended well. `turn` is awaited before it starts.
    pub async fn join<T, F, Fut>(&self, turn: T, flush: F) -> Result<(), IndexError>
    where
        T: Future,
        F: FnOnce(T::Output) -> Fut,
        Fut: Future<Output = Result<(), IndexError>>,
    {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.done.lock().await;
        if *done >= mine {
            return Ok(());
        }
        let turn = turn.await;
        let upto = self.asked.load(Ordering::SeqCst);
        flush(turn).await?;
        *done = upto;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn those_that_wait_share_the_next_flush() {
        let flushes = Arc::new(Flushes::default());
        let (runs, gate) = (AtomicU64::new(0), Notify::new());
        let turn = || async {};
        let flush = |()| async {
            runs.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            Ok(())
        };
        let open = async {
            for _ in 0..2 {
                tokio::task::yield_now().await;
                gate.notify_one();
                tokio::task::yield_now().await;
            }
        };
        let all = futures::future::join_all((0..10).map(|_| flushes.join(turn(), flush)));
        let (results, ()) = futures::join!(all, open);
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(
            runs.load(Ordering::SeqCst),
            2,
            "the first one's, and one for the nine that came meanwhile"
        );
        gate.notify_one();
        flushes.join(turn(), flush).await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3, "a later call needs a flush of its own");
    }

    #[tokio::test]
    async fn a_failed_flush_serves_nobody() {
        let flushes = Flushes::default();
        let failed = |()| async {
            Err(IndexError::Unavailable {
                operation: "flush",
                message: "disk full".into(),
            })
        };
        assert!(flushes.join(async {}, failed).await.is_err());
        assert!(
            flushes.join(async {}, failed).await.is_err(),
            "the next caller tries again"
        );
        assert!(flushes.join(async {}, |()| async { Ok(()) }).await.is_ok());
    }
}
