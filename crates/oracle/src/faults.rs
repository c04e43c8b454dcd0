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
//! | `lost_commit` | instance | the broker's answer to its next commit is lost, with the connection |
//! | `restart` | the only broker | SIGTERM; it is started again |
//! | `freeze` | the only broker | SIGSTOP for some seconds |
//! | `kill` | registry | SIGKILL; it is started again |

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use millrace_runtime::clock::now_ms;
use millrace_testkit::proxy::Call;
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

/// Name of the fault that loses the broker's answer to a commit.
pub const LOST_COMMIT: &str = "lost_commit";

/// A fault that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub name: &'static str,
    /// Of which part.
    pub of: String,
    /// From when, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// Until when.
    pub until_ms: i64,
}

/// Faults so far, and when a broker was away.
#[derive(Debug, Default)]
pub struct Faults {
    past: Mutex<Vec<Fault>>,
    outages: Mutex<Vec<(i64, i64)>>,
    /// Held by one service's fault each; alone by the broker's.
    weather: tokio::sync::RwLock<()>,
    /// One fault that lasts at a time.
    long: tokio::sync::Mutex<()>,
    /// Held by one embedder's fault each; alone by the one that aims at a record of it.
    embedders: tokio::sync::RwLock<()>,
}

impl Faults {
    /// How many there were of each.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for fault in self.past() {
            *counts.entry(format!("{} {}", fault.name, fault.of)).or_default() += 1;
        }
        counts
    }

    /// All of them, in the order in which they ended.
    pub fn past(&self) -> Vec<Fault> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From when to when a broker was away or its replicas were behind, milliseconds since 1970 UTC.
    pub fn outages(&self) -> Vec<(i64, i64)> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A broker was away, and is back.
    pub(crate) fn broker_was_away(&self, from_ms: i64) {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.push((from_ms, now_ms()));
    }

    /// Waits for the end of any other fault that lasts.
    pub(crate) async fn one_that_lasts(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.long.lock().await
    }

    /// No other fault befalls an embedder as long as this is held.
    pub(crate) async fn embedders_alone(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.embedders.write().await
    }

    /// A fault has ended.
    pub(crate) fn note(&self, name: &'static str, of: &str, from_ms: i64) {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).push(Fault {
            name,
            of: of.to_owned(),
            from_ms,
            until_ms: now_ms(),
        });
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
            // First: who waits for it must not hold up the weather.
            let _aimed = match part.starts_with("embedder") {
                true => Some(self.embedders.read().await),
                false => None,
            };
            let weather = self.weather.read().await;
            let kind = rng.random_range(0..20);
            let cut = Duration::from_secs(rng.random_range(CUT_SECONDS));
            let from_ms = now_ms();
            match kind {
                0..=8 => {
                    stack.kill(part, Signal::KILL).await?;
                    self.note("kill", part, from_ms);
                }
                9..=13 => {
                    stack.kill(part, Signal::TERM).await?;
                    self.note("restart", part, from_ms);
                }
                14..=15 => {
                    // Of a process that dies before it commits, nothing is lost.
                    if link.lose_answer(Call::EndTxn).await.is_ok() {
                        self.note(LOST_COMMIT, part, from_ms);
                    }
                }
                kind => {
                    let long = self.one_that_lasts().await;
                    let from_ms = now_ms();
                    if kind <= 17 {
                        let still = Still::hold(stack.serving(part).await?)?;
                        tokio::time::sleep(FREEZE).await;
                        drop(still);
                        self.note("freeze", part, from_ms);
                    } else {
                        link.cut(cut).await;
                        self.note("cut", part, from_ms);
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
                let from_ms = now_ms();
                stack.kill("registry", Signal::KILL).await?;
                stack.serving("registry").await?;
                self.note("kill", "registry", from_ms);
                continue;
            }
            let _weather = self.weather.write().await;
            // Until they serve it is not the broker that is away.
            for part in stack.size.parts() {
                stack.serving(&part).await?;
            }
            let from = now_ms();
            if kind == 2 {
                let still = Still::hold(stack.serving("kafka").await?)?;
                tokio::time::sleep(freeze).await;
                drop(still);
                self.note("freeze", "broker", from);
            } else {
                brokers::restart_the_only(stack).await?;
                self.note("restart", "broker", from);
            }
            self.broker_was_away(from);
        }
        Ok(())
    }
}

pub(crate) async fn pause(rng: &mut StdRng, seconds: Range<u64>, stop: &CancellationToken) -> bool {
    let pause = Duration::from_secs(rng.random_range(seconds));
    stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
}
