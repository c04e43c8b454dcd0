//! Where a document lives.

use millrace_events::DocumentKey;
use millrace_events::topics::PARTITIONS;
use millrace_kafka::partitioner::partition_for;

/// A document's partition: the same one in every document topic.
pub fn partition_of(document: &DocumentKey) -> i32 {
    partition_for(document.to_string().as_bytes(), PARTITIONS)
}
