//! Ports: free ones are found once and kept, so that a second `up` is where the first one was.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Below the range that systems give to outgoing connections: a kept port is not lost to one.
const RANGE: std::ops::Range<u16> = 17_000..32_000;

/// One port for each listener of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Ports {
    pub kafka: u16,
    pub controller: u16,
    pub registry: u16,
    pub ingest: u16,
    pub embedder: u16,
    pub indexer: u16,
}

/// A kept port that somebody else listens on by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Whose port.
    pub part: &'static str,
    /// The kept one.
    pub from: u16,
    /// The new one.
    pub to: u16,
}

impl Ports {
    /// Free ports: the kept ones where they still are free. No data depends on a port (the registry's ids and Kafka's
    /// log do not), so a lost one is replaced and reported, not refused.
    pub fn choose(kept: Option<Self>) -> Result<(Self, Vec<Moved>)> {
        let fresh = Self {
            kafka: 0,
            controller: 0,
            registry: 0,
            ingest: 0,
            embedder: 0,
            indexer: 0,
        };
        let mut ports = kept.unwrap_or(fresh);
        let mut moved = Vec::new();
        let mut used = HashSet::new();
        for (part, port) in [
            ("kafka", &mut ports.kafka),
            ("kafka's controller", &mut ports.controller),
            ("registry", &mut ports.registry),
            ("ingest", &mut ports.ingest),
            ("embedder", &mut ports.embedder),
            ("indexer", &mut ports.indexer),
        ] {
            let from = *port;
            if from == 0 || used.contains(&from) || !is_free(from) {
                *port = find_free(&used)?;
                if from != 0 {
                    moved.push(Moved { part, from, to: *port });
                }
            }
            used.insert(*port);
        }
        Ok((ports, moved))
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn find_free(used: &HashSet<u16>) -> Result<u16> {
    // From a random place on: two stacks that start together then rarely try the same port.
    let start = rand::rng().random_range(RANGE);
    let ring = (start..RANGE.end).chain(RANGE.start..start);
    match ring.into_iter().find(|port| !used.contains(port) && is_free(*port)) {
        Some(port) => Ok(port),
        None => bail!("no port from {} to {} is free on 127.0.0.1", RANGE.start, RANGE.end - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_ports_stay_and_a_taken_one_moves() {
        let (first, moved) = Ports::choose(None).unwrap();
        assert_eq!(moved, []);
        let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, first.registry)).unwrap();
        let (second, moved) = Ports::choose(Some(first.clone())).unwrap();
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert_eq!((moved[0].part, moved[0].from), ("registry", first.registry));
        assert_ne!(second.registry, first.registry);
        assert_eq!(
            Ports {
                registry: first.registry,
                ..second
            },
            first
        );
        drop(stranger);
    }
}
