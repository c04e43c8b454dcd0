//! How many brokers a stack has and how many instances of its services, and what `millrace up` calls each part.

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// 1 or 3.
    pub brokers: u16,
    /// Instances of ingest and of the embedder.
    pub replicas: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            brokers: 1,
            replicas: 1,
        }
    }
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
    /// As its pid file and log are named.
    pub fn part(&self) -> String {
        match self.number {
            0 => self.service.to_owned(),
            number => format!("{}-{number}", self.service),
        }
    }

    /// A variable that this instance alone reads.
    pub fn variable(&self, field: &str) -> String {
        format!("MILLRACE_{}_{}_{field}", self.service.to_uppercase(), self.number)
    }
}

/// The part that is a broker's node, by its id from 1.
pub fn broker(node: i32) -> String {
    match node {
        1 => "kafka".to_owned(),
        node => format!("kafka-{node}"),
    }
}

impl Size {
    /// Instances of the services; there is one indexer.
    pub fn instances(self) -> Vec<Instance> {
        let services = [("ingest", self.replicas), ("embedder", self.replicas), ("indexer", 1)];
        let instances = |(service, count)| (0..count).map(move |number| Instance { service, number });
        services.into_iter().flat_map(instances).collect()
    }

    /// Every part.
    pub fn parts(self) -> Vec<String> {
        let brokers = (1..=i32::from(self.brokers)).map(broker);
        let services = self.instances().into_iter().map(|instance| instance.part());
        brokers.chain(["registry".to_owned()]).chain(services).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_has_no_number() {
        let size = Size {
            brokers: 3,
            replicas: 2,
        };
        let parts = [
            "kafka",
            "kafka-2",
            "kafka-3",
            "registry",
            "ingest",
            "ingest-1",
            "embedder",
            "embedder-1",
            "indexer",
        ];
        assert_eq!(size.parts(), parts);
        assert_eq!(size.instances()[0].variable("LISTEN"), "MILLRACE_INGEST_0_LISTEN");
    }
}
