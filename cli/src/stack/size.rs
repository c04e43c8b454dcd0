//! How many brokers a stack has and how many instances of its services, and what each part is called.
//!
//! | part | the first | the others |
//! |---|---|---|
//! | broker, by its node id from 1 | `kafka` | `kafka-2`, `kafka-3` |
//! | ingest, embedder, by its instance from `local-0` | `ingest`, `embedder` | `ingest-1`, `embedder-1`, … |
//! | indexer: the embedded index has one writer | `indexer` | |
//! | registry | `registry` | |

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Most instances of a service: more than any machine that runs a whole stack has a use for.
pub const MOST_REPLICAS: u16 = 4;
/// The embedded index has one writer.
const INDEXERS: u16 = 1;

/// How many of each. Kept with the stack: a record's replicas and a group's members do not follow a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// 1, or 3 with each record on all of them.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub brokers: u16,
    /// Instances of ingest and of the embedder.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub replicas: u16,
}

fn one() -> u16 {
    1
}

fn is_one(count: &u16) -> bool {
    *count == 1
}

impl Default for Size {
    fn default() -> Self {
        Self {
            brokers: one(),
            replicas: one(),
        }
    }
}

/// What a start asks for; what it does not say is as it was, or 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Brokers.
    pub brokers: Option<u16>,
    /// Instances.
    pub replicas: Option<u16>,
}

/// An instance of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// `ingest`, `embedder`, `indexer`.
    pub service: &'static str,
    /// From 0.
    pub number: u16,
}

impl Instance {
    /// What its files are named after, and its port.
    pub fn part(&self) -> String {
        match self.number {
            0 => self.service.to_owned(),
            number => format!("{}-{number}", self.service),
        }
    }

    /// Member of the consumer group, part of the transactional id.
    pub fn name(&self) -> String {
        format!("local-{}", self.number)
    }
}

/// The listener of an instance's health and metrics over HTTP.
pub fn http_of(part: &str) -> String {
    format!("{part}-http")
}

/// What a node's files are named after, and its port; with `controller` that of its other listener.
pub fn of_node(id: u16, name: &str) -> String {
    match id {
        1 => name.to_owned(),
        id => format!("{name}-{id}"),
    }
}

impl Size {
    /// Neither of them is more than one: nothing of it shows.
    pub fn is_smallest(self) -> bool {
        self == Self::default()
    }

    /// What is asked for, where it is what the directory has.
    pub fn choose(asked: Asked, kept: Option<Self>) -> Result<Self> {
        let choose = |what: &str, asked: Option<u16>, kept: Option<u16>| {
            if let (Some(asked), Some(kept)) = (asked, kept) {
                ensure!(
                    asked == kept,
                    "the stack in this directory has --{what} {kept}, not {asked}: that is chosen at its first start; \
                     leave --{what} out, or choose another directory with --dir"
                );
            }
            Ok(asked.or(kept).unwrap_or(1))
        };
        Ok(Self {
            brokers: choose("brokers", asked.brokers, kept.map(|size| size.brokers))?,
            replicas: choose("replicas", asked.replicas, kept.map(|size| size.replicas))?,
        })
    }

    /// Ids of the brokers' nodes.
    pub fn nodes(self) -> impl Iterator<Item = u16> {
        1..=self.brokers
    }

    /// Instances of the services, in the order a document meets them.
    pub fn instances(self) -> impl Iterator<Item = Instance> {
        let services = [
            ("ingest", self.replicas),
            ("embedder", self.replicas),
            ("indexer", INDEXERS),
        ];
        let instances = |(service, count)| (0..count).map(move |number| Instance { service, number });
        services.into_iter().flat_map(instances)
    }

    /// Every part, in the order in which they are stopped.
    pub fn parts(self) -> Vec<String> {
        let services = self.instances().map(|instance| instance.part());
        let brokers = self.nodes().map(|id| of_node(id, "kafka"));
        services.chain(["registry".to_owned()]).chain(brokers).collect()
    }

    /// Everything that listens: the parts, each broker's controller, and what receives traces.
    pub fn listeners(self) -> Vec<String> {
        let controllers = self.nodes().map(|id| of_node(id, "controller"));
        let traces = [crate::traces::PART.to_owned()];
        let http = self.instances().map(|instance| http_of(&instance.part()));
        self.parts()
            .into_iter()
            .chain(controllers)
            .chain(traces)
            .chain(http)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Size = Size {
        brokers: 3,
        replicas: 2,
    };

    #[test]
    fn the_smallest_has_the_names_that_it_always_had() {
        let parts = Size::default().parts();
        assert_eq!(parts, ["ingest", "embedder", "indexer", "registry", "kafka"]);
    }

    #[test]
    fn each_part_of_a_larger_one_has_a_name_of_its_own() {
        let expected = [
            "ingest",
            "ingest-1",
            "embedder",
            "embedder-1",
            "indexer",
            "registry",
            "kafka",
            "kafka-2",
            "kafka-3",
            "controller",
            "controller-2",
            "controller-3",
            "traces",
            "ingest-http",
            "ingest-1-http",
            "embedder-http",
            "embedder-1-http",
            "indexer-http",
        ];
        assert_eq!(KEPT.listeners(), expected);
        let names: Vec<_> = KEPT.instances().map(|instance| instance.name()).collect();
        assert_eq!(names, ["local-0", "local-1", "local-0", "local-1", "local-0"]);
    }

    #[test]
    fn what_is_not_said_is_as_it_was_and_another_count_is_refused() {
        let asked = |brokers, replicas| Asked { brokers, replicas };
        assert_eq!(Size::choose(asked(None, None), None).unwrap(), Size::default());
        assert_eq!(Size::choose(asked(None, None), Some(KEPT)).unwrap(), KEPT);
        assert_eq!(Size::choose(asked(Some(3), Some(2)), None).unwrap(), KEPT);
        assert_eq!(Size::choose(asked(Some(3), None), Some(KEPT)).unwrap(), KEPT);
        for (asked, says) in [
            (asked(Some(1), None), "--brokers 3, not 1"),
            (asked(None, Some(4)), "--replicas 2, not 4"),
        ] {
            let refused = Size::choose(asked, Some(KEPT)).unwrap_err().to_string();
            assert!(refused.contains(says) && refused.contains("--dir"), "{refused}");
        }
    }
}
