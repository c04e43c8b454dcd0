//! Stands between a client and the only broker of a stack, and loses answers on order, or lets them wait: the broker has
//! done what it was asked for, and the client cannot know. Or cuts the link altogether.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// For a client to make the call whose answer is to be lost.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// Where every broker of a stack says that it is.
const HOST: &[u8] = b"127.0.0.1";

/// What a client asks a broker for, by its key in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Call {
    /// Append records.
    Produce = 0,
    /// Where partitions live.
    Metadata = 3,
    /// Where a group or a transactional id is coordinated.
    FindCoordinator = 10,
    /// Take a transactional id.
    InitProducerId = 22,
    /// Make partitions part of a transaction.
    AddPartitionsToTxn = 24,
    /// Make a group's positions part of a transaction.
    AddOffsetsToTxn = 25,
    /// Commit or abort.
    EndTxn = 26,
    /// Positions of a transaction.
    TxnOffsetCommit = 28,
}

/// A running proxy. Dropped, it hangs up on everybody.
#[derive(Debug)]
pub struct Proxy {
    /// Bootstrap server for clients. They are told of no other.
    pub address: String,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// The broker's address; without one everybody is hung up on.
    broker: OnceLock<String>,
    /// The port that clients are told in the broker's place.
    own: u16,
    cut: watch::Sender<bool>,
    /// What befalls which answer next; the guard is dropped when it has.
    order: Mutex<Option<(Call, Fate, DropGuard)>>,
}

/// What befalls an answer.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Lost,
    Late(Duration),
}

impl Proxy {
    /// Listens on a port of its own, in front of a broker's address.
    pub async fn before(broker: &str) -> Result<Self> {
        let proxy = Self::alone().await?;
        proxy.stand_before(broker);
        Ok(proxy)
    }

    /// Listens on a port of its own, and hangs up on everybody until there is a broker: [`Proxy::stand_before`].
    pub async fn alone() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?;
        let shared = Arc::new(Shared {
            broker: OnceLock::new(),
            own: own.port(),
            cut: watch::Sender::new(false),
            order: Mutex::default(),
        });
        let serving = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self {
            address: own.to_string(),
            shared,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// From now on, and for good, this proxy stands before that broker.
    pub fn stand_before(&self, broker: &str) {
        self.shared.broker.get_or_init(|| broker.to_owned());
    }

    /// Cuts the link: hangs up on everybody, and lets nobody through for this time.
    pub async fn cut(&self, time: Duration) {
        self.shared.cut.send_replace(true);
        tokio::time::sleep(time).await;
        self.shared.cut.send_replace(false);
    }

    /// Throws away the broker's next answer to such a call, with the connection, and returns when that has happened.
    pub async fn lose_answer(&self, call: Call) -> Result<()> {
        self.order(call, Fate::Lost).await
    }

    /// Gives the broker's next answer to such a call only after this time, as all that comes behind it on its connection,
    /// and returns when it is given, or nobody waits for it any more.
    pub async fn hold_answer(&self, call: Call, time: Duration) -> Result<()> {
        self.order(call, Fate::Late(time)).await
    }

    async fn order(&self, call: Call, fate: Fate) -> Result<()> {
        let happened = CancellationToken::new();
        let order = (call, fate, happened.clone().drop_guard());
        *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
        timeout(ASKED_WITHIN, happened.cancelled())
            .await
            .with_context(|| format!("nobody asked for {call:?}"))
    }
}

impl Shared {
    /// What befalls the answer to this call; an order counts once.
    fn fate(&self, key: i16) -> Option<(Fate, DropGuard)> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, fate, happening) = order.take_if(|(call, ..)| *call as i16 == key)?;
        Some((fate, happening))
    }

    /// Puts this proxy's port where the broker's stands.
    fn redirect(&self, answer: &mut [u8]) -> Result<()> {
        let broker = self.broker()?;
        let (_, port) = broker.rsplit_once(':').context("no port in the broker's address")?;
        let address = [HOST, &port.parse::<i32>()?.to_be_bytes()].concat();
        let mut at = 0;
        while let Some(found) = answer[at..].windows(address.len()).position(|bytes| bytes == address) {
            at += found + address.len();
            answer[at - 4..at].copy_from_slice(&i32::from(self.own).to_be_bytes());
        }
        Ok(())
    }

    fn broker(&self) -> Result<&String> {
        self.broker.get().context("there is no broker yet")
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        // A client whose broker is away is hung up on, as the broker's machine would.
        connections.spawn(async move {
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                biased;
                _ = cut.wait_for(|cut| *cut) => false,
                carried = carry(client, &shared) => carried.is_ok(),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries requests and answers, until either end hangs up or an answer is lost.
async fn carry(client: TcpStream, shared: &Shared) -> Result<()> {
    let broker = TcpStream::connect(shared.broker()?).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let asked = Mutex::default();
    tokio::select! {
        ended = requests(from_client, to_broker, &asked) => ended,
        ended = answers(from_broker, to_client, &asked, shared) => ended,
    }
}

/// The calls under way on a connection, by correlation id.
type Asked = Mutex<HashMap<i32, i16>>;

async fn requests(mut client: OwnedReadHalf, mut broker: OwnedWriteHalf, asked: &Asked) -> Result<()> {
    loop {
        let request = frame(&mut client).await?;
        // Behind the length: key, version, correlation id.
        let (key, correlation) = (&request[4..6], &request[8..12]);
        let (key, correlation) = (
            i16::from_be_bytes(key.try_into()?),
            i32::from_be_bytes(correlation.try_into()?),
        );
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(correlation, key);
        broker.write_all(&request).await?;
    }
}

async fn answers(mut broker: OwnedReadHalf, mut client: OwnedWriteHalf, asked: &Asked, shared: &Shared) -> Result<()> {
    loop {
        let mut answer = frame(&mut broker).await?;
        let correlation = i32::from_be_bytes(answer[4..8].try_into()?);
        let key = asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&correlation);
        let key = key.context("an answer that nobody asked for")?;
        match shared.fate(key) {
            None => {}
            Some((Fate::Lost, _)) => return Ok(()),
            // A client that loses its patience hangs up: that ends it as well.
            Some((Fate::Late(time), _happening)) => tokio::time::sleep(time).await,
        }
        if [Call::Metadata, Call::FindCoordinator]
            .map(|call| call as i16)
            .contains(&key)
        {
            shared.redirect(&mut answer)?;
        }
        client.write_all(&answer).await?;
    }
}

/// One request or answer, its length in front.
async fn frame(from: &mut OwnedReadHalf) -> Result<Vec<u8>> {
    let length = from.read_i32().await?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.resize(4 + usize::try_from(length)?, 0);
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_broker_becomes_the_proxys() {
        let shared = Shared {
            broker: OnceLock::from("127.0.0.1:9092".to_owned()),
            own: 19092,
            cut: watch::Sender::new(false),
            order: Mutex::default(),
        };
        let at = |port: i32| [b"x127.0.0.1".as_slice(), &port.to_be_bytes()].concat();
        let mut answer = [at(9092), at(9093), at(9092)].concat();
        shared.redirect(&mut answer).unwrap();
        assert_eq!(answer, [at(19092), at(9093), at(19092)].concat());
    }

    #[test]
    fn an_order_counts_once_and_for_its_call_alone() {
        let happened = CancellationToken::new();
        let shared = Shared {
            broker: OnceLock::new(),
            own: 2,
            cut: watch::Sender::new(false),
            order: Mutex::new(Some((Call::EndTxn, Fate::Lost, happened.clone().drop_guard()))),
        };
        assert!(shared.fate(Call::Produce as i16).is_none());
        let (fate, happening) = shared.fate(Call::EndTxn as i16).unwrap();
        assert!(matches!(fate, Fate::Lost) && shared.fate(Call::EndTxn as i16).is_none());
        assert!(!happened.is_cancelled());
        drop(happening);
        assert!(happened.is_cancelled());
    }
}
