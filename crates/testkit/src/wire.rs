//! What an operator's tools, or a rival, do to a broker, spoken to it directly: no client of the product does any of it, and
//! the tools of the distribution are not part of a stack.
//!
//! One connection a call, one broker, the oldest version of each request that it still takes: most need no tagged fields.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::poll;

const CALL: Duration = Duration::from_secs(5);
/// For what a coordinator refuses only for now.
const SETTLED: Duration = Duration::from_secs(60);

/// Coordinator loading, not available, not here (yet); a transaction of the same name is still being ended.
const FOR_NOW: [i16; 4] = [14, 15, 16, 51];

/// A call: its key, its version, whether its headers carry tags.
pub(crate) struct Api(pub(crate) i16, pub(crate) i16, pub(crate) bool);

const LIST_OFFSETS: Api = Api(2, 1, false);
const OFFSET_COMMIT: Api = Api(8, 2, false);
const OFFSET_FETCH: Api = Api(9, 2, false);
const LEAVE_GROUP: Api = Api(13, 3, false);
const DELETE_RECORDS: Api = Api(21, 1, false);
const INIT_PRODUCER_ID: Api = Api(22, 1, false);
const ADD_OFFSETS_TO_TXN: Api = Api(25, 0, false);
const TXN_OFFSET_COMMIT: Api = Api(28, 0, false);
const DESCRIBE_TRANSACTIONS: Api = Api(65, 0, true);

/// A position as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Lowest unfinished offset.
    pub offset: i64,
    /// What stands beside it.
    pub metadata: String,
}

/// A broker of a stack; what only a coordinator or a leader answers needs the only one.
#[derive(Debug, Clone)]
pub struct Broker {
    address: String,
}

impl Broker {
    /// Connects with each call.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
        }
    }

    /// End of each partition of a topic, transaction markers included.
    pub async fn ends(&self, topic: &str, partitions: i32) -> Result<BTreeMap<i32, i64>> {
        const END: i64 = -1;
        let mut body = Body::default();
        body.int32(-1).int32(1).string(topic).int32(partitions);
        (0..partitions).for_each(|partition| _ = body.int32(partition).int64(END));
        let mut answer = self.call(LIST_OFFSETS, body).await.context("ask for ends")?;
        answer.skip(4)?.string()?;
        let mut ends = BTreeMap::new();
        for _ in 0..answer.int32()? {
            let partition = answer.int32()?;
            none("ask for ends", answer.int16()?)?;
            ends.insert(partition, answer.skip(8)?.int64()?);
        }
        Ok(ends)
    }

    /// Deletes a partition's records below an offset, as retention does. Gives the new start of the log.
    pub async fn delete_records(&self, topic: &str, partition: i32, below: i64) -> Result<i64> {
        let mut body = Body::default();
        body.int32(1).string(topic).int32(1).int32(partition).int64(below);
        body.int32(10_000);
        let mut answer = self.call(DELETE_RECORDS, body).await.context("delete records")?;
        answer.skip(4 + 4)?.string()?;
        answer.skip(4 + 4)?;
        let start = answer.int64()?;
        none("delete records", answer.int16()?)?;
        Ok(start)
    }

    /// Commits a position as an operator: the group must have no members.
    pub async fn commit(&self, group: &str, topic: &str, partition: i32, position: &Committed) -> Result<()> {
        let mut body = Body::default();
        body.string(group).int32(-1).string("").int64(-1);
        body.int32(1).string(topic).int32(1).int32(partition);
        body.int64(position.offset).string(&position.metadata);
        let mut answer = self.call(OFFSET_COMMIT, body).await.context("commit")?;
        answer.skip(4)?.string()?;
        answer.skip(4 + 4)?;
        none("commit", answer.int16()?)
    }

    /// What is committed for partitions of a topic; those without a position are left out.
    pub async fn committed(&self, group: &str, topic: &str, partitions: i32) -> Result<BTreeMap<i32, Committed>> {
        let mut body = Body::default();
        body.string(group).int32(1).string(topic).int32(partitions);
        (0..partitions).for_each(|partition| _ = body.int32(partition));
        let mut answer = self.call(OFFSET_FETCH, body).await.context("ask for positions")?;
        ensure!(answer.int32()? == 1, "one topic is asked for");
        answer.string()?;
        let mut positions = BTreeMap::new();
        for _ in 0..answer.int32()? {
            let (partition, offset) = (answer.int32()?, answer.int64()?);
            let metadata = answer.string()?.unwrap_or_default();
            none("ask for positions", answer.int16()?)?;
            if offset >= 0 {
                positions.insert(partition, Committed { offset, metadata });
            }
        }
        none("ask for positions", answer.int16()?)?;
        Ok(positions)
    }

    /// Takes a static member out of its group, as an operator who knows that its process will not come back.
    pub async fn leave(&self, group: &str, instance: &str) -> Result<()> {
        let mut body = Body::default();
        body.string(group).int32(1).string("").string(instance);
        let mut answer = self.call(LEAVE_GROUP, body).await.context("leave")?;
        answer.skip(4)?;
        none("leave", answer.int16()?)?;
        ensure!(answer.int32()? == 1, "one member was named");
        answer.string()?;
        answer.string()?;
        none("leave", answer.int16()?)
    }

    /// Takes a transactional id, as another producer of the same name does: the one before is fenced, its open transaction
    /// aborted.
    pub async fn fence(&self, transactional_id: &str) -> Result<()> {
        self.take(transactional_id, 15_000).await.map(|_| ())
    }

    /// Begins a transaction that commits a position for a group, and leaves it open: nobody is told the partition's position
    /// until [`Broker::fence`] takes the transactional id, or the transaction has lasted two minutes.
    pub async fn hold_position(
        &self,
        transactional_id: &str,
        (group, topic, partition): (&str, &str, i32),
        offset: i64,
    ) -> Result<()> {
        let (producer, epoch) = self.take(transactional_id, 120_000).await?;
        let mut body = Body::default();
        body.string(transactional_id).int64(producer).int16(epoch).string(group);
        let mut answer = self.call(ADD_OFFSETS_TO_TXN, body).await?;
        none("add a group to a transaction", answer.skip(4)?.int16()?)?;
        let mut body = Body::default();
        body.string(transactional_id).string(group).int64(producer).int16(epoch);
        body.int32(1).string(topic).int32(1).int32(partition);
        body.int64(offset).string("");
        let mut answer = self.call(TXN_OFFSET_COMMIT, body).await?;
        answer.skip(4 + 4)?.string()?;
        answer.skip(4 + 4)?;
        none("commit a position in a transaction", answer.int16()?)
    }

    /// Producer id and epoch.
    async fn take(&self, transactional_id: &str, timeout_ms: i32) -> Result<(i64, i16)> {
        poll::until(&format!("{transactional_id} to be taken"), SETTLED, async || {
            let mut body = Body::default();
            body.string(transactional_id).int32(timeout_ms);
            let mut answer = self.call(INIT_PRODUCER_ID, body).await?;
            let code = answer.skip(4)?.int16()?;
            match code {
                0 => Ok(Ok((answer.int64()?, answer.int16()?))),
                code if FOR_NOW.contains(&code) => Ok(Err(code)),
                code => bail!("the broker answers with code {code}"),
            }
        })
        .await
    }

    /// State of a transactional id: `Empty`, `Ongoing`, `PrepareCommit`, `CompleteCommit`, `PrepareAbort`,
    /// `CompleteAbort`.
    pub async fn transaction_state(&self, transactional_id: &str) -> Result<String> {
        let mut body = Body::default();
        body.compact_len(1).compact_string(transactional_id).no_tags();
        let mut answer = self.call(DESCRIBE_TRANSACTIONS, body).await?;
        // Throttle time, and the length of an array of one.
        answer.skip(4 + 1)?;
        none("describe a transaction", answer.int16()?)?;
        answer.compact_string()?;
        answer.compact_string()
    }

    pub(crate) async fn call(&self, api: Api, body: Body) -> Result<Answer> {
        let Api(key, version, tagged) = api;
        let mut head = Body::default();
        head.int16(key).int16(version).int32(1).string("millrace-testkit");
        if tagged {
            head.no_tags();
        }
        let length = i32::try_from(head.0.len() + body.0.len())?;
        let exchange = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream
                .write_all(&[&length.to_be_bytes()[..], &head.0, &body.0].concat())
                .await?;
            let mut bytes = vec![0; usize::try_from(stream.read_i32().await?)?];
            stream.read_exact(&mut bytes).await?;
            anyhow::Ok(bytes)
        };
        let bytes = timeout(CALL, exchange).await.context("the broker does not answer")??;
        let mut answer = Answer(bytes.into());
        answer.skip(if tagged { 5 } else { 4 })?;
        Ok(answer)
    }
}

pub(crate) fn none(what: &str, code: i16) -> Result<()> {
    ensure!(code == 0, "could not {what}: the broker answers with code {code}");
    Ok(())
}

/// A request's body.
#[derive(Debug, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn int16(&mut self, value: i16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }
    pub(crate) fn int32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }
    fn int64(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }
    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        debug_assert!(text.len() < 1 << 15, "names and metadata are short");
        self.int16(text.len() as i16).bytes(text.as_bytes())
    }
    /// Length of a compact array or string, which stays below 127 here: one byte, one more than it says.
    fn compact_len(&mut self, len: usize) -> &mut Self {
        debug_assert!(len < 127, "names are short");
        self.bytes(&[len as u8 + 1])
    }
    fn compact_string(&mut self, text: &str) -> &mut Self {
        self.compact_len(text.len()).bytes(text.as_bytes())
    }
    fn no_tags(&mut self) -> &mut Self {
        self.bytes(&[0])
    }
}

/// An answer's bytes, or a record's, read from the front.
#[derive(Debug)]
pub(crate) struct Answer(std::collections::VecDeque<u8>);

impl Answer {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().collect())
    }
    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        ensure!(len <= self.0.len(), "{len} bytes wanted, {} left", self.0.len());
        Ok(self.0.drain(..len).collect())
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().ok().context("as many as asked for")
    }
    pub(crate) fn skip(&mut self, len: usize) -> Result<&mut Self> {
        self.take(len)?;
        Ok(self)
    }
    pub(crate) fn int16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }
    pub(crate) fn int32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    fn int64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }
    /// None for null.
    pub(crate) fn string(&mut self) -> Result<Option<String>> {
        let Ok(len) = usize::try_from(self.int16()?) else {
            return Ok(None);
        };
        Ok(Some(String::from_utf8(self.take(len)?)?))
    }
    /// Skips bytes with their length before them.
    pub(crate) fn skip_bytes(&mut self) -> Result<()> {
        let len = usize::try_from(self.int32()?).unwrap_or(0);
        self.skip(len).map(|_| ())
    }
    fn compact_string(&mut self) -> Result<String> {
        let [len] = self.array()?;
        ensure!((1..128).contains(&len), "{len} is no length of a short string");
        Ok(String::from_utf8(self.take(usize::from(len) - 1)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut body = Body::default();
        body.int16(-2)
            .int32(3)
            .int64(1 << 40)
            .string("in")
            .compact_string("out");
        let mut answer = Answer(body.0.into());
        assert_eq!(answer.int16().unwrap(), -2);
        assert_eq!(answer.int32().unwrap(), 3);
        assert_eq!(answer.int64().unwrap(), 1 << 40);
        assert_eq!(answer.string().unwrap().as_deref(), Some("in"));
        assert_eq!(answer.compact_string().unwrap(), "out");
        assert!(answer.int16().is_err(), "nothing is left");
    }
}
