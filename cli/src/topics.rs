//! The topics as they must be: created where they lack, refused where they differ in what can never change.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use millrace_events::topics::{ALL, Cleanup, PARSED, PARTITIONS, Topic};
use millrace_events::{Epoch, Lane};
use millrace_kafka::{Admin, Created, NewTopic, TopicInfo};
use millrace_schema::Registry;
use millrace_schema::compat::Mode;
use millrace_schema::publish::{self, PublishError, Wanted};

/// One topic after [`apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its name, epoch included.
    pub name: String,
    /// Replicas of each partition.
    pub replication: i32,
    /// Whether it is new.
    pub created: bool,
}

/// Replicas where the caller does not say: three brokers can lose one without a gap in what is promised.
pub fn default_replication(brokers: usize) -> i32 {
    if brokers >= 3 { 3 } else { 1 }
}

/// Names of the topics with their kinds: all, and those of lanes.
pub fn named(epoch: Epoch, lanes: &BTreeSet<Lane>) -> Vec<(String, Topic)> {
    let all = ALL.iter().map(|topic| (topic.in_epoch(epoch), *topic));
    let lanes = lanes.iter().map(|lane| (PARSED.in_lane(lane, epoch), PARSED));
    all.chain(lanes).collect()
}

/// The lanes whose topics are among these.
pub fn lanes_of(existing: &[TopicInfo], epoch: Epoch) -> BTreeSet<Lane> {
    let lane = |topic: &TopicInfo| {
        let rest = topic.name.strip_prefix(PARSED.name)?.strip_prefix('.')?;
        let lane = Lane::new(rest.split('.').next()?).ok()?;
        (PARSED.in_lane(&lane, epoch) == topic.name).then_some(lane)
    };
    existing.iter().filter_map(lane).collect()
}

/// Creates the topics that lack, those of `lanes` too. Does nothing, and says so, when all are there.
pub async fn apply(
    admin: &Admin,
    epoch: Epoch,
    lanes: &BTreeSet<Lane>,
    replication: Option<i32>,
) -> Result<Vec<Applied>> {
    let brokers = admin.brokers().await?;
    let replication = match replication {
        Some(wanted) if usize::try_from(wanted).is_ok_and(|w| (1..=brokers).contains(&w)) => wanted,
        Some(wanted) => bail!("a replication factor of {wanted} is not possible: the cluster has {brokers} brokers"),
        None => default_replication(brokers),
    };
    let existing = admin.topics().await?;
    let topics = named(epoch, lanes);
    for (name, _) in &topics {
        refuse_other_partitions(name, &existing)?;
    }
    let mut applied = Vec::new();
    for (name, topic) in topics {
        let found = existing.iter().find(|t| t.name == name).map(|t| t.replication);
        let created = match found {
            Some(_) => false,
            None => {
                let new = NewTopic {
                    name: name.clone(),
                    partitions: PARTITIONS,
                    replication,
                    config: config(&topic, replication),
                };
                let created = admin
                    .create(new)
                    .await
                    .with_context(|| format!("cannot create {name}"))?;
                created == Created::Created
            }
        };
        applied.push(Applied {
            name,
            replication: found.unwrap_or(replication),
            created,
        });
    }
    Ok(applied)
}

/// A key's partition is part of the contract: with another count its documents would lose their order.
fn refuse_other_partitions(name: &str, existing: &[TopicInfo]) -> Result<()> {
    match existing.iter().find(|t| t.name == name) {
        Some(topic) if topic.partitions != PARTITIONS => bail!(
            "the topic {name} has {} partitions, not {PARTITIONS}: the partition of a document is fixed for an epoch; \
             stop accepting, drain, and start the next epoch, or delete the topic if it holds nothing",
            topic.partitions
        ),
        _ => Ok(()),
    }
}

/// A topic's settings. One in-sync replica less than replicas lets a broker restart without a refusal.
pub fn config(topic: &Topic, replication: i32) -> Vec<(String, String)> {
    let min_isr = if replication >= 3 { 2 } else { 1 };
    let mut config = vec![
        ("max.message.bytes".to_owned(), topic.max_record_bytes.to_string()),
        ("min.insync.replicas".to_owned(), min_isr.to_string()),
        ("unclean.leader.election.enable".to_owned(), "false".to_owned()),
    ];
    match topic.cleanup {
        Cleanup::Delete(after) => {
            config.push(("cleanup.policy".to_owned(), "delete".to_owned()));
            config.push(("retention.ms".to_owned(), after.as_millis().to_string()));
        }
        Cleanup::Compact => config.push(("cleanup.policy".to_owned(), "compact".to_owned())),
    }
    config
}

/// The subjects of the topics, as this build has them.
pub fn subjects() -> Vec<Wanted> {
    let wanted = |topic: &Topic| Wanted {
        subject: topic.subject(),
        mode: Mode::FullTransitive,
        versions: topic.versions.iter().map(|v| (*v).to_owned()).collect(),
    };
    ALL.iter().filter(|topic| topic.schema.is_some()).map(wanted).collect()
}

/// Registers the topics' schemas; services look theirs up and never register. Says of how many subjects.
pub async fn register(registry: &Registry) -> Result<usize> {
    match publish::apply(registry, &subjects(), false).await {
        Ok(applied) => Ok(applied.len()),
        // As itself, so that an outage is told from a refusal.
        Err(PublishError::Registry(e)) => Err(e.into()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::topics::{DLQ, STATUS, SUBMITTED};

    #[test]
    fn settings_follow_the_table_of_topics() {
        let has = |topic: &Topic, replication, name: &str, value: &str| {
            config(topic, replication).contains(&(name.to_owned(), value.to_owned()))
        };
        assert!(has(&SUBMITTED, 1, "retention.ms", "604800000"));
        assert!(has(&SUBMITTED, 1, "min.insync.replicas", "1"));
        assert!(has(&SUBMITTED, 3, "min.insync.replicas", "2"));
        assert!(has(&STATUS, 3, "cleanup.policy", "compact"));
        assert!(has(&DLQ, 3, "max.message.bytes", "8388608"));
    }

    #[test]
    fn another_partition_count_is_refused() {
        let topic = |partitions| {
            [TopicInfo {
                name: "documents.parsed".to_owned(),
                partitions,
                replication: 1,
            }]
        };
        assert!(refuse_other_partitions("documents.parsed", &topic(12)).is_ok());
        assert!(refuse_other_partitions("documents.dlq", &topic(6)).is_ok());
        let refused = refuse_other_partitions("documents.parsed", &topic(6))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("6 partitions, not 12"), "{refused}");
    }

    #[test]
    fn lanes_are_found_by_their_topics() {
        let names = [
            "documents.parsed",
            "documents.parsed.bulk",
            "documents.parsed.e2",
            "documents.parsed.bulk.e2",
            "x",
        ];
        let existing = names.map(|name| TopicInfo {
            name: name.to_owned(),
            partitions: 12,
            replication: 1,
        });
        let bulk: BTreeSet<Lane> = [Lane::new("bulk").unwrap()].into();
        assert_eq!(lanes_of(&existing, Epoch::FIRST), bulk);
        let named: Vec<String> = named(Epoch::FIRST, &bulk).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            (named.len(), named.last().map(String::as_str)),
            (8, Some("documents.parsed.bulk"))
        );
    }

    #[test]
    fn three_brokers_are_needed_for_three_replicas() {
        assert_eq!([1, 2, 3, 9].map(default_replication), [1, 1, 3, 3]);
    }
}
