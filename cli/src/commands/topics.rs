//! `millrace topics`.

use anyhow::Result;
use millrace_events::{Epoch, Lane};
use millrace_kafka::Admin;
use serde_json::json;

use crate::client::Target;
use crate::output;
use crate::registry::RegistryArgs;
use crate::topics;

/// Create Millrace's topics, or list them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace topics apply                                        the local stack's broker
  millrace topics apply --kafka broker-1:9092,broker-2:9092    three brokers or more: 3 replicas, 2 in sync
  millrace topics apply --lane bulk --lane urgent              two lanes: documents.parsed.bulk, documents.parsed.urgent
  millrace topics list --json")]
pub struct Topics {
    #[command(flatten)]
    access: RegistryArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create the topics that lack; change none that exists
    ///
    /// With --registry their schemas are registered there too, as `millrace schema apply` does it.
    Apply {
        /// Replicas of each partition [default: 3 with three brokers or more, else 1]
        #[arg(long, value_name = "N")]
        replication_factor: Option<i32>,
        /// Also the topic of this lane; may be given several times
        #[arg(long, value_name = "NAME", value_parser = lane)]
        lane: Vec<Lane>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// List the topics with their settings and how many offsets each spans
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Applies or lists.
pub async fn run(command: Topics, target: &Target) -> Result<()> {
    let admin = Admin::new(&target.kafka()?)?;
    match command.action {
        Action::Apply {
            replication_factor,
            lane,
            json,
        } => {
            let lanes = lane.into_iter().collect();
            for topic in topics::apply(&admin, Epoch::FIRST, &lanes, replication_factor).await? {
                if json {
                    output::json(
                        &json!({"topic": topic.name, "created": topic.created, "replication": topic.replication}),
                    );
                } else {
                    let what = if topic.created { "created" } else { "exists" };
                    output::line(format_args!("{:<22} {what}", topic.name));
                }
            }
            // A remote cluster's schemas are its registry's owner's; here both were named.
            if let Some(address) = target.given_registry() {
                topics::register(&command.access.connect(address)?).await?;
            }
        }
        Action::List { json } => list(&admin, json).await?,
    }
    Ok(())
}

/// A lane's name; the base lane has none.
pub fn lane(text: &str) -> Result<Lane, String> {
    let lane = Lane::new(text).map_err(|error| error.to_string())?;
    (!lane.is_base())
        .then_some(lane)
        .ok_or_else(|| "a lane has a name".to_owned())
}

async fn list(admin: &Admin, json: bool) -> Result<()> {
    let existing = admin.topics().await?;
    if !json {
        output::line(format_args!(
            "{:<22} {:>10} {:>8} {:>12}  SETTINGS",
            "TOPIC", "PARTITIONS", "REPLICAS", "OFFSETS"
        ));
    }
    let lanes = topics::lanes_of(&existing, Epoch::FIRST);
    for (name, topic) in topics::named(Epoch::FIRST, &lanes) {
        let Some(info) = existing.iter().find(|t| t.name == name) else {
            if json {
                output::json(&json!({"topic": name, "exists": false}));
            } else {
                output::line(format_args!(
                    "{name:<22} does not exist: `millrace topics apply` creates it"
                ));
            }
            continue;
        };
        let (mut offsets, mut ends) = (0, Vec::new());
        for partition in 0..info.partitions {
            let (first, end) = admin.watermarks(&name, partition).await?;
            offsets += end - first;
            ends.push(end.to_string());
        }
        let found = admin.describe_topic_config(&name).await?;
        let settings: Vec<_> = topics::config(&topic, info.replication)
            .into_iter()
            .map(|(key, _)| {
                let value = found.get(&key).cloned().unwrap_or_default();
                (key, value)
            })
            .collect();
        if json {
            let settings: serde_json::Map<_, _> = settings.into_iter().map(|(k, v)| (k, v.into())).collect();
            output::json(&json!({
                "topic": name, "exists": true, "partitions": info.partitions, "replication": info.replication,
                "offsets": offsets.to_string(), "end_offsets": ends, "settings": settings,
            }));
        } else {
            let settings: Vec<_> = settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
            output::line(format_args!(
                "{name:<22} {:>10} {:>8} {offsets:>12}  {}",
                info.partitions,
                info.replication,
                settings.join(" ")
            ));
        }
    }
    Ok(())
}
