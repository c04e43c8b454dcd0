//! Between librdkafka's messages and the runtime's records.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};

use millrace_flow::{Delivery, Headers, Origin, TopicPartition};
use millrace_telemetry::Span;
use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::TopicPartitionListElem;

pub(crate) fn delivery(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Delivery {
    let headers = message.headers().map(|headers| {
        let owned = headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice)));
        Headers(owned.collect())
    });
    Delivery {
        origin: Origin {
            topic,
            partition: message.partition(),
            offset: message.offset(),
        },
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        attempt: 1,
        span: Span::none(),
    }
}

pub(crate) fn headers(headers: &Headers) -> Option<OwnedHeaders> {
    let with = |owned: OwnedHeaders, (name, value): &(String, Option<Bytes>)| {
        owned.insert(Header {
            key: name,
            value: value.as_deref(),
        })
    };
    let owned = || OwnedHeaders::new_with_capacity(headers.0.len());
    (!headers.0.is_empty()).then(|| headers.0.iter().fold(owned(), with))
}

pub(crate) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

pub(crate) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(partition_of).collect()
}

pub(crate) fn partition_of(element: &TopicPartitionListElem<'_>) -> TopicPartition {
    TopicPartition {
        topic: element.topic().into(),
        partition: element.partition(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_value_of_a_header_stays_absent() {
        let read = Headers(vec![("a".into(), None), ("b".into(), Some(Bytes::new()))]);
        let written = headers(&read).expect("two headers");
        let values: Vec<_> = written.iter().map(|header| (header.key, header.value)).collect();
        assert_eq!(values, [("a", None), ("b", Some(&[][..]))]);
    }
}
