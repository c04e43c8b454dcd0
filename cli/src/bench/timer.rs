//! A timer fine enough for simulated work of some milliseconds: tokio's own has a resolution of one, which would add
//! half of one to every record, and the peers' `parkNanos` has none of that.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Sleeps that end when they should, give or take what the system's scheduler does. Cheap to clone; its thread ends
/// with [`TimerThread`].
#[derive(Debug, Clone)]
pub struct Timer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    sleeps: Mutex<Sleeps>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct Sleeps {
    heap: BinaryHeap<Reverse<Sleep>>,
    closed: bool,
}

#[derive(Debug)]
struct Sleep {
    until: Instant,
    done: oneshot::Sender<()>,
}

impl PartialEq for Sleep {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Sleep {}

impl PartialOrd for Sleep {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleep {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

/// Closes the thread's side when the last user has gone.
#[derive(Debug)]
pub struct TimerThread {
    timer: Timer,
}

impl TimerThread {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let timer = Timer { shared: shared.clone() };
        std::thread::Builder::new()
            .name("bench-timer".into())
            .spawn(move || run(&shared))?;
        Ok(Self { timer })
    }

    /// A handle for those who sleep.
    pub fn timer(&self) -> Timer {
        self.timer.clone()
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        let mut sleeps = self.timer.shared.sleeps.lock().unwrap_or_else(PoisonError::into_inner);
        sleeps.closed = true;
        self.timer.shared.earlier.notify_one();
    }
}

impl Timer {
    /// Sleeps. Ends at once when the thread has been closed.
    pub async fn sleep(&self, time: Duration) {
        let (done, ended) = oneshot::channel();
        let until = Instant::now() + time;
        {
            let mut sleeps = self.shared.sleeps.lock().unwrap_or_else(PoisonError::into_inner);
            if sleeps.closed {
                return;
            }
            let earlier = sleeps.heap.peek().is_none_or(|Reverse(next)| until < next.until);
            sleeps.heap.push(Reverse(Sleep { until, done }));
            if earlier {
                self.shared.earlier.notify_one();
            }
        }
        let _ = ended.await;
    }
}

fn run(shared: &Shared) {
    let mut sleeps = shared.sleeps.lock().unwrap_or_else(PoisonError::into_inner);
    let mut due = Vec::new();
    while !sleeps.closed {
        let now = Instant::now();
        while sleeps.heap.peek().is_some_and(|Reverse(next)| next.until <= now) {
            due.extend(sleeps.heap.pop().map(|Reverse(sleep)| sleep.done));
        }
        if !due.is_empty() {
            drop(sleeps);
            // Whoever waited for it and has gone needs no wake-up.
            for done in due.drain(..) {
                let _ = done.send(());
            }
            sleeps = shared.sleeps.lock().unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let next = sleeps.heap.peek().map(|Reverse(next)| next.until);
        let wait = next.map_or(Duration::from_secs(1), |until| until.saturating_duration_since(now));
        let woken = shared.earlier.wait_timeout(sleeps, wait);
        sleeps = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
    sleeps.heap.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleeps_end_in_the_order_of_their_times_and_with_the_thread() {
        let thread = TimerThread::start().unwrap();
        let timer = thread.timer();
        let since = Instant::now();
        let sleep = |micros| {
            let timer = timer.clone();
            async move {
                timer.sleep(Duration::from_micros(micros)).await;
                since.elapsed()
            }
        };
        let (long, short) = tokio::join!(sleep(9_000), sleep(500));
        assert!(short >= Duration::from_micros(500) && long >= Duration::from_micros(9_000));
        assert!(short < long, "{short:?} {long:?}");
        let endless = tokio::spawn({
            let timer = timer.clone();
            async move { timer.sleep(Duration::from_secs(3600)).await }
        });
        tokio::task::yield_now().await;
        drop(thread);
        endless.await.unwrap();
    }
}
