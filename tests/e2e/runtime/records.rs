//! What a case writes, and what comes of it.

use anyhow::{Context, Result, ensure};
use millrace_flow::{Delivery, Headers};

use super::stage;

/// A header of every record that is written: a dead letter keeps it.
pub const WRITTEN_FOR: &str = "written-for";

/// A record to write: key, partition if the key does not decide it, script.
#[derive(Debug, Clone)]
pub struct Input {
    pub key: String,
    pub partition: Option<i32>,
    pub script: String,
}

/// A record; its key decides its partition.
pub fn input(key: &str, script: &str) -> Input {
    Input {
        key: key.to_owned(),
        partition: None,
        script: script.to_owned(),
    }
}

impl Input {
    /// Written to this partition.
    pub fn to(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// So many records of so many keys in turn, all with one script.
pub fn spread(count: usize, keys: usize, script: &str) -> Vec<Input> {
    (0..count).map(|n| input(&format!("k{}", n % keys), script)).collect()
}

/// An output, or a dead letter.
#[derive(Debug, Clone)]
pub struct Done {
    /// Where its input stood.
    pub origin: (i32, i64),
    /// Key and value.
    pub key: String,
    pub value: String,
    headers: Headers,
}

impl Done {
    pub fn of(delivery: &Delivery) -> Result<Self> {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let origin = delivery.headers.get_str(stage::ORIGIN).context("no origin")?;
        let (partition, offset) = origin.split_once('/').context("half an origin")?;
        Ok(Self {
            origin: (partition.parse()?, offset.parse()?),
            key: text(delivery.key.as_deref()),
            value: text(delivery.value.as_deref()),
            headers: delivery.headers.clone(),
        })
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get_str(name)
    }
}

/// What came of a case's records.
#[derive(Debug)]
pub struct Out {
    /// Outputs, in order within each key.
    pub done: Vec<Done>,
    /// Dead letters.
    pub dead: Vec<Done>,
}

impl Out {
    /// None was tried again for a reason of its own, and none was given up.
    pub fn at_the_first_attempt(&self) -> Result<()> {
        let again: Vec<_> = self
            .done
            .iter()
            .filter(|d| d.header(stage::ATTEMPT) != Some("1"))
            .collect();
        ensure!(again.is_empty(), "an attempt was burned: {again:?}");
        ensure!(self.dead.is_empty(), "given up: {:?}", self.dead);
        Ok(())
    }
}
