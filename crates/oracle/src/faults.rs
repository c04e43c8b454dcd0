//! What happens to the processes.
//!
//! Every instance of a service has a lane of its own: faults of one follow one another, those of different ones meet. The
//! only broker and the registry share a lane, three brokers have one of their own ([`crate::brokers`]). While the only
//! broker is restarted nothing else goes on: see [`millrace_testkit::still`] for why.
//!
//! | fault | of | what |
//! |---|---|---|
//! | `kill` | instance | SIGKILL; it is started again |
//! | `restart` | instance | SIGTERM; it is started again |
//! | `freeze` | instance | SIGSTOP for longer than a session, then SIGCONT: a zombie |
//! | `cut` | instance | its link to all brokers is cut for as long, the index stays reachable |
//! | `restart` | the only broker | SIGTERM; it is started again |
//! | `freeze` | the only broker | SIGSTOP for some seconds |
//! | `kill` | registry | SIGKILL; it is started again |

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use millrace_runtime::clock::now_ms;
use millrace_testkit::still::Still;
use millrace_testkit::{Proxy, Stack};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::brokers;

/// Of a member, for the run: shorter than the default, so that zombies are not what takes longest.
pub const SESSION: Duration = Duration::from_secs(10);

const BETWEEN_SECONDS: Range<u64> = 4..14;
const BETWEEN_OUTAGES_SECONDS: Range<u64> = 25..50;
const FREEZE: Duration = SESSION.saturating_add(Duration::from_secs(3));
/// For what a fault that lasts leaves behind: members that were expelled, sessions that begin anew.
pub(crate) const RECOVERY: Duration = Duration::from_secs(10);
const CUT_SECONDS: Range<u64> = 2..13;
const BROKER_FREEZE_SECONDS: Range<u64> = 2..8;

/// Faults so far, and when the only broker was away.
#[derive(Debug, Default)]
pub struct Faults {
    counts: Mutex<BTreeMap<String, u64>>,
    outages: Mutex<Vec<(i64, i64)>>,
    /// Held by one service's fault each; alone by the broker's.
    weather: tokio::sync::RwLock<()>,
    /// One fault that lasts at a time.
    long: tokio::sync::Mutex<()>,
}

impl Faults {
    /// How many there were of each.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From when to when the only broker was away, milliseconds since 1970 UTC.
    pub fn outages(&self) -> Vec<(i64, i64)> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end of any other fault that lasts.
    pub(crate) async fn one_that_lasts(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.long.lock().await
    }

    pub(crate) fn count(&self, fault: &str, of: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(format!("{fault} {of}")).or_default() += 1;
    }

    /// Faults of an instance, until it is told to stop; the last one is over then.
    pub async fn of_instance(
        &self,
        stack: &Stack,
        part: &str,
        link: &Proxy,
        seed: u64,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        while pause(&mut rng, BETWEEN_SECONDS, stop).await {
            let weather = self.weather.read().await;
            let kind = rng.random_range(0..20);
            let cut = Duration::from_secs(rng.random_range(CUT_SECONDS));
            match kind {
                0..=9 => {
                    stack.kill(part, Signal::KILL).await?;
                    self.count("kill", part);
                }
                10..=14 => {
                    stack.kill(part, Signal::TERM).await?;
                    self.count("restart", part);
                }
                kind => {
                    let long = self.one_that_lasts().await;
                    if kind <= 16 {
                        let still = Still::hold(stack.serving(part).await?)?;
                        tokio::time::sleep(FREEZE).await;
                        drop(still);
                        self.count("freeze", part);
                    } else {
                        link.cut(cut).await;
                        self.count("cut", part);
                    }
                    drop(weather);
                    // Before the next one: a chain of them would stop a canary for longer than any of them does.
                    stop.run_until_cancelled(tokio::time::sleep(RECOVERY)).await;
                    drop(long);
                }
            }
        }
        Ok(())
    }

    /// Outages of the registry and of the only broker, until it is told to stop.
    pub async fn of_the_rest(&self, stack: &Stack, seed: u64, stop: &CancellationToken) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        while pause(&mut rng, BETWEEN_OUTAGES_SECONDS, stop).await {
            let kind = rng.random_range(0..4);
            let freeze = Duration::from_secs(rng.random_range(BROKER_FREEZE_SECONDS));
            if kind >= 2 && stack.size.brokers > 1 {
                continue;
            }
            if kind < 2 {
                stack.kill("registry", Signal::KILL).await?;
                stack.serving("registry").await?;
                self.count("kill", "registry");
                continue;
            }
            let _weather = self.weather.write().await;
            let from = now_ms();
            if kind == 2 {
                let still = Still::hold(stack.serving("kafka").await?)?;
                tokio::time::sleep(freeze).await;
                drop(still);
                self.count("freeze", "broker");
            } else {
                brokers::restart_the_only(stack).await?;
                self.count("restart", "broker");
            }
            let mut outages = self.outages.lock().map_err(|_| anyhow!("a fault panicked"))?;
            outages.push((from, now_ms()));
        }
        Ok(())
    }
}

pub(crate) async fn pause(rng: &mut StdRng, seconds: Range<u64>, stop: &CancellationToken) -> bool {
    let pause = Duration::from_secs(rng.random_range(seconds));
    stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
}
