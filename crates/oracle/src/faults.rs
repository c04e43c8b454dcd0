//! What happens to the processes.
//!
//! Every service has a lane of its own: faults of one follow one another, those of different services meet. Broker and
//! registry share a lane. While the broker is restarted nothing else goes on: see [`millrace_testkit::still`] for why.
//!
//! | fault | of | what |
//! |---|---|---|
//! | `kill` | service | SIGKILL; it is started again |
//! | `restart` | service | SIGTERM; it is started again |
//! | `freeze` | service | SIGSTOP for longer than a session, then SIGCONT: a zombie |
//! | `cut` | service | its link to the broker is cut for as long, the index stays reachable |
//! | `broker_restart` | broker | SIGTERM; it is started again |
//! | `broker_freeze` | broker | SIGSTOP for some seconds |
//! | `registry_kill` | registry | SIGKILL; it is started again |

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use millrace_runtime::clock::now_ms;
use millrace_testkit::still::{Still, undecided};
use millrace_testkit::wire::Broker;
use millrace_testkit::{Proxy, Stack};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

/// The services, with the transactional id of each.
pub const SERVICES: [(&str, &str); 3] = [
    ("ingest", "millrace.parse.local-0"),
    ("embedder", "millrace.embed.local-0"),
    ("indexer", "millrace.index.local-0"),
];
/// Of a member, for the run: shorter than the default, so that zombies are not what takes longest.
pub const SESSION: Duration = Duration::from_secs(10);

const BETWEEN_SECONDS: Range<u64> = 4..14;
const BETWEEN_OUTAGES_SECONDS: Range<u64> = 25..50;
const FREEZE: Duration = SESSION.saturating_add(Duration::from_secs(3));
/// For what a fault that lasts leaves behind: members that were expelled, sessions that begin anew.
const RECOVERY: Duration = Duration::from_secs(10);
const CUT_SECONDS: Range<u64> = 2..13;
const BROKER_FREEZE_SECONDS: Range<u64> = 2..8;

/// Faults so far, and when the broker was away.
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

    /// From when to when the broker was away, milliseconds since 1970 UTC.
    pub fn outages(&self) -> Vec<(i64, i64)> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, fault: &str, of: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(format!("{fault} {of}")).or_default() += 1;
    }

    /// Faults of a service, until it is told to stop; the last one is over then.
    pub async fn of_service(
        &self,
        stack: &Stack,
        service: &str,
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
                    stack.kill(service, Signal::KILL).await?;
                    self.count("kill", service);
                }
                10..=14 => {
                    stack.kill(service, Signal::TERM).await?;
                    self.count("restart", service);
                }
                kind => {
                    let long = self.long.lock().await;
                    if kind <= 16 {
                        let still = Still::hold(stack.serving(service).await?)?;
                        tokio::time::sleep(FREEZE).await;
                        drop(still);
                        self.count("freeze", service);
                    } else {
                        link.cut(cut).await;
                        self.count("cut", service);
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

    /// Outages of broker and registry, until it is told to stop.
    pub async fn of_the_rest(&self, stack: &Stack, seed: u64, stop: &CancellationToken) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        while pause(&mut rng, BETWEEN_OUTAGES_SECONDS, stop).await {
            let kind = rng.random_range(0..4);
            let freeze = Duration::from_secs(rng.random_range(BROKER_FREEZE_SECONDS));
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
                self.restart_broker(stack).await?;
                self.count("restart", "broker");
            }
            let mut outages = self.outages.lock().map_err(|_| anyhow!("a fault panicked"))?;
            outages.push((from, now_ms()));
        }
        Ok(())
    }

    async fn restart_broker(&self, stack: &Stack) -> Result<()> {
        let mut held = Vec::new();
        for (service, transactional_id) in SERVICES {
            held.push((stack.serving(service).await?, transactional_id.to_owned()));
        }
        let still = undecided(&Broker::new(&stack.addresses.kafka), &held, false).await?;
        stack.kill("kafka", Signal::TERM).await?;
        drop(still);
        stack.serving("kafka").await?;
        Ok(())
    }
}

pub(crate) async fn pause(rng: &mut StdRng, seconds: Range<u64>, stop: &CancellationToken) -> bool {
    let pause = Duration::from_secs(rng.random_range(seconds));
    stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
}
