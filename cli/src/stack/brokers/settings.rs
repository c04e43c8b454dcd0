//! A node's settings file.

use std::path::Path;

use anyhow::Result;

use crate::stack::ports::Ports;
use crate::stack::size::{Size, of_node};

const TEMPLATE: &str = include_str!("../../../../deploy/local/kafka.properties");

/// A node of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// From 1.
    pub id: u16,
    /// For clients.
    pub port: u16,
    /// For the quorum.
    pub controller: u16,
}

/// The nodes of a stack.
pub fn nodes(size: Size, ports: &Ports) -> Result<Vec<Node>> {
    let node = |id| {
        Ok(Node {
            id,
            port: ports.of(&of_node(id, "kafka"))?,
            controller: ports.of(&of_node(id, "controller"))?,
        })
    };
    size.nodes().map(node).collect()
}

/// The settings of a node among all of them, with its log under `data`.
pub fn properties(node: &Node, nodes: &[Node], data: &Path) -> String {
    let (replicas, in_sync) = if nodes.len() < 3 { (1, 1) } else { (3, 2) };
    TEMPLATE
        .replace("@NODE@", &node.id.to_string())
        .replace("@DATA@", &data.to_string_lossy())
        .replace("@BROKER_PORT@", &node.port.to_string())
        .replace("@CONTROLLER_PORT@", &node.controller.to_string())
        .replace("@QUORUM@", &quorum(nodes))
        .replace("@REPLICAS@", &replicas.to_string())
        .replace("@IN_SYNC@", &in_sync.to_string())
}

fn quorum(nodes: &[Node]) -> String {
    if let [node] = nodes {
        return format!("controller.quorum.bootstrap.servers=127.0.0.1:{}", node.controller);
    }
    let voter = |node: &Node| format!("{}@127.0.0.1:{}", node.id, node.controller);
    let voters: Vec<_> = nodes.iter().map(voter).collect();
    format!("controller.quorum.voters={}", voters.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [Node; 3] = [
        Node {
            id: 1,
            port: 10,
            controller: 11,
        },
        Node {
            id: 2,
            port: 20,
            controller: 21,
        },
        Node {
            id: 3,
            port: 30,
            controller: 31,
        },
    ];

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|l| l == line)
    }

    #[test]
    fn one_node_is_its_own_quorum_and_the_only_replica() {
        let text = properties(&NODES[0], &NODES[..1], Path::new("/d/kafka"));
        for line in [
            "node.id=1",
            "log.dirs=/d/kafka",
            "listeners=PLAINTEXT://127.0.0.1:10,CONTROLLER://127.0.0.1:11",
            "controller.quorum.bootstrap.servers=127.0.0.1:11",
            "offsets.topic.replication.factor=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "min.insync.replicas=1",
        ] {
            assert!(has(&text, line), "{line} lacks in {text}");
        }
        let mut settings = text.lines().filter(|line| !line.starts_with('#'));
        assert!(settings.all(|line| !line.contains('@')), "{text}");
    }

    #[test]
    fn three_nodes_vote_and_each_record_needs_two() {
        let text = properties(&NODES[1], &NODES, Path::new("/d/kafka-2"));
        for line in [
            "node.id=2",
            "log.dirs=/d/kafka-2",
            "advertised.listeners=PLAINTEXT://127.0.0.1:20,CONTROLLER://127.0.0.1:21",
            "controller.quorum.voters=1@127.0.0.1:11,2@127.0.0.1:21,3@127.0.0.1:31",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
            "min.insync.replicas=2",
            "unclean.leader.election.enable=false",
        ] {
            assert!(has(&text, line), "{line} lacks in {text}");
        }
    }
}
