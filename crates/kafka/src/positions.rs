//! Where partitions start: what is committed, held against their logs.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::convert;
use crate::member::Member;
use millrace_flow::TopicPartition;
use millrace_flow::position::Position;

/// One request for positions or watermarks.
pub(crate) const REQUEST: Duration = Duration::from_secs(5);
/// How often positions are asked for while another owner's transaction is still being written down.
const UNSTABLE_TRIES: u32 = 50;
const UNSTABLE_PAUSE: Duration = Duration::from_millis(100);

/// The positions committed for partitions. An error of one partition is never taken for "nothing committed": that would
/// process it again from its beginning.
pub(crate) fn committed(consumer: &Member, list: &TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
    for _ in 0..UNSTABLE_TRIES {
        let committed = consumer.committed_offsets(list.clone(), REQUEST)?;
        let failed = committed.elements().iter().find_map(|element| element.error().err());
        match failed {
            None => return Ok(committed),
            Some(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnstableOffsetCommit) => {
                std::thread::sleep(UNSTABLE_PAUSE);
            }
            Some(error) => return Err(error),
        }
    }
    Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnstableOffsetCommit))
}

/// Why a change of assignment could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssignmentError {
    #[error("committed positions of the consumer group could not be read ({0})")]
    Positions(KafkaError),
    /// Kafka tells a position only once the transaction that writes it has ended.
    #[error(
        "committed positions of the consumer group could not be read ({0}); where this goes on and the broker is well, a \
         transaction of the group has no end: look for it with kafka-transactions.sh find-hanging --topic __consumer_offsets"
    )]
    Unstable(KafkaError),
    #[error("where partitions begin and end could not be asked ({0})")]
    Bounds(KafkaError),
    #[error("the client refused the partitions ({0})")]
    Client(KafkaError),
}

impl AssignmentError {
    /// The client asks again for a position that is not settled, until its time is over.
    pub(crate) fn of_positions(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::UnstableOffsetCommit) => Self::Unstable(error),
            _ => Self::Positions(error),
        }
    }
}

/// By partition, an offset, or why its leader tells none.
type Bounds = Vec<(TopicPartition, Result<i64, KafkaError>)>;

/// Offsets by partition.
pub(crate) type Offsets = BTreeMap<TopicPartition, i64>;

/// The first, or the next stable, offset of partitions: one request to each of their leaders, however many they are.
pub(crate) fn log_bounds(consumer: &Member, list: &TopicPartitionList, bound: Offset) -> Result<Offsets, KafkaError> {
    // A change of assignment that gives nothing: the client takes an empty question for an error.
    if list.count() == 0 {
        return Ok(Offsets::new());
    }
    bounds(consumer, list, bound)?
        .into_iter()
        .map(|(partition, bound)| Ok((partition, bound?)))
        .collect()
}

/// The same for whichever partitions can be told; −1 where a log has none.
pub(crate) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
    bound: Offset,
) -> Result<Bounds, KafkaError> {
    let mut asked = list.clone();
    asked.set_all_offsets(bound)?;
    let answered = consumer.offsets_for_times(asked, REQUEST)?;
    let bounds = answered.elements().into_iter().map(|element| {
        let offset = element.error().map(|()| element.offset().to_raw().unwrap_or(-1));
        (convert::partition_of(&element), offset)
    });
    Ok(bounds.collect())
}

pub(crate) fn offset_of(offsets: &Offsets, partition: &TopicPartition) -> Result<i64, KafkaError> {
    let known = offsets.get(partition).copied().filter(|offset| *offset >= 0);
    known.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))
}

/// Where a partition starts.
///
/// | committed | log | start |
/// |---|---|---|
/// | nothing | any | its beginning |
/// | within the log | any | there, with what its metadata says |
/// | below the log's start | records are gone | stopped: `LOST_RANGE` |
/// | above the log's end | the log was re-created | stopped: `LOG_RECREATED` |
/// | unreadable metadata | any | stopped: guessing would repeat or skip records |
pub(crate) fn position(committed: Offset, metadata: &str, low: i64, high: i64) -> Result<Position, String> {
    match committed {
        Offset::Offset(at) if at < low => Err(format!(
            "LOST_RANGE: committed position {at} lies below the log's start {low}: {} records were deleted by retention \
             before they were processed; reset the group's offset to {low} to go on without them",
            low - at
        )),
        Offset::Offset(at) if at > high => Err(format!(
            "LOG_RECREATED: committed position {at} lies above the log's end {high}: the topic was re-created; \
             start the next epoch, or reset the group's offsets"
        )),
        Offset::Offset(at) => {
            Position::parse(at, metadata).map_err(|error| format!("OFFSET_METADATA at offset {at}: {error}"))
        }
        _ => Ok(Position::at(low)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table() {
        assert_eq!(position(Offset::Invalid, "", 5, 9), Ok(Position::at(5)));
        assert_eq!(position(Offset::Offset(7), "", 5, 9), Ok(Position::at(7)));
        let with_bitmap = position(Offset::Offset(5), "1;s=0;o=;a=0;b=AQ", 5, 9).unwrap();
        assert!(with_bitmap.finished.contains(&6) && !with_bitmap.finished.contains(&7));
        assert!(
            position(Offset::Offset(4), "", 5, 9)
                .unwrap_err()
                .starts_with("LOST_RANGE")
        );
        assert!(
            position(Offset::Offset(10), "", 5, 9)
                .unwrap_err()
                .starts_with("LOG_RECREATED")
        );
        assert!(
            position(Offset::Offset(7), "9;", 5, 9)
                .unwrap_err()
                .starts_with("OFFSET_METADATA")
        );
    }

    #[test]
    fn a_transaction_is_blamed_for_what_it_may_hold_back_alone() {
        for (code, blamed) in [
            (RDKafkaErrorCode::OperationTimedOut, true),
            (RDKafkaErrorCode::UnstableOffsetCommit, true),
            (RDKafkaErrorCode::GroupAuthorizationFailed, false),
            (RDKafkaErrorCode::AllBrokersDown, false),
        ] {
            let error = AssignmentError::of_positions(KafkaError::MetadataFetch(code));
            assert_eq!(matches!(error, AssignmentError::Unstable(_)), blamed, "{code}");
        }
    }
}
