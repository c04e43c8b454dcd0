//! Ports: free ones are found once and kept, so that a second `up` is where the first one was.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Below the range that systems give to outgoing connections: a kept port is not lost to one.
const RANGE: std::ops::Range<u16> = 17_000..32_000;

/// One port for each listener of a stack, by its name: [`super::size::Size::listeners`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ports(BTreeMap<String, u16>);

/// A kept port that somebody else listens on by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Whose port.
    pub listener: String,
    /// The kept one.
    pub from: u16,
    /// The new one.
    pub to: u16,
}

impl Ports {
    /// Free ports: the kept ones where they still are free. No data depends on a port (the registry's ids and Kafka's
    /// log do not), so a lost one is replaced and reported, not refused.
    pub fn choose(kept: Option<Self>, listeners: &[String]) -> Result<(Self, Vec<Moved>)> {
        let kept = kept.unwrap_or_default();
        let (mut ports, mut moved, mut used) = (Self::default(), Vec::new(), HashSet::new());
        for listener in listeners {
            let from = kept.0.get(listener).copied();
            let port = match from {
                Some(port) if !used.contains(&port) && is_free(port) => port,
                _ => find_free(&used)?,
            };
            if let Some(from) = from.filter(|from| *from != port) {
                let listener = listener.clone();
                moved.push(Moved {
                    listener,
                    from,
                    to: port,
                });
            }
            used.insert(port);
            ports.0.insert(listener.clone(), port);
        }
        Ok((ports, moved))
    }

    /// Where a listener is.
    pub fn of(&self, listener: &str) -> Result<u16> {
        let port = self.0.get(listener).copied();
        port.with_context(|| format!("the stack has no port for {listener}"))
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
    use crate::stack::size::Size;

    #[test]
    fn kept_ports_stay_and_a_taken_one_moves() {
        let listeners = Size::default().listeners();
        let (first, moved) = Ports::choose(None, &listeners).unwrap();
        assert_eq!(moved, []);
        let registry = first.of("registry").unwrap();
        let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, registry)).unwrap();
        let (second, moved) = Ports::choose(Some(first.clone()), &listeners).unwrap();
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert_eq!((moved[0].listener.as_str(), moved[0].from), ("registry", registry));
        for listener in &listeners {
            let stays = second.of(listener).unwrap() == first.of(listener).unwrap();
            assert_eq!(stays, listener != "registry", "{listener}");
        }
        drop(stranger);
    }

    #[test]
    fn every_listener_has_a_port_of_its_own() {
        let size = Size {
            brokers: 3,
            replicas: 4,
        };
        let listeners = size.listeners();
        let (ports, _) = Ports::choose(None, &listeners).unwrap();
        let different: HashSet<_> = listeners.iter().map(|name| ports.of(name).unwrap()).collect();
        assert_eq!(different.len(), 3 + 3 + 1 + 2 * (4 + 4 + 1) + 1);
        assert!(ports.of("indexer-1").is_err());
    }
}
