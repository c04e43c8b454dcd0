//! Stands between a client and all brokers of a stack, with a port before each of them, and loses answers on order, or lets them wait: the broker has
//! done what it was asked for, and the client cannot know. Or cuts the link altogether.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
    /// Read records.
    Fetch = 1,
    /// Where partitions live.
    Metadata = 3,
    /// Where a group or a transactional id is coordinated.
    FindCoordinator = 10,
    /// Become a member of a group.
    JoinGroup = 11,
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
    /// Bootstrap servers for clients. They are told of no others.
    pub address: String,
    shared: Arc<Shared>,
    _serving: Vec<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The brokers' ports; without them everybody is hung up on.
    brokers: OnceLock<Vec<u16>>,
    /// The port that clients are told in the place of each.
    own: Vec<u16>,
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
    /// Listens on ports of its own, in front of bootstrap servers that are all of a stack's brokers.
    pub async fn before(brokers: &str) -> Result<Self> {
        let proxy = Self::alone(brokers.split(',').count()).await?;
        proxy.stand_before(brokers)?;
        Ok(proxy)
    }

    /// Listens on ports of its own, and hangs up on everybody until there are as many brokers: [`Proxy::stand_before`].
    pub async fn alone(brokers: usize) -> Result<Self> {
        let (mut listeners, mut own) = (Vec::new(), Vec::new());
        for _ in 0..brokers {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            own.push(listener.local_addr()?.port());
            listeners.push(listener);
        }
        let addresses: Vec<_> = own.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let shared = Arc::new(Shared {
            brokers: OnceLock::new(),
            own,
            cut: watch::Sender::new(false),
            order: Mutex::default(),
        });
        let serving = listeners.into_iter().enumerate();
        let serving = serving.map(|(at, listener)| tokio::spawn(serve(listener, at, shared.clone())));
        Ok(Self {
            address: addresses.join(","),
            _serving: serving.map(AbortOnDropHandle::new).collect(),
            shared,
        })
    }

    /// From now on, and for good, this proxy stands before those brokers.
    pub fn stand_before(&self, brokers: &str) -> Result<()> {
        let port = |address: &str| {
            let (_, port) = address.rsplit_once(':').context("no port in a broker's address")?;
            Ok(port.parse()?)
        };
        let brokers: Vec<u16> = brokers.split(',').map(port).collect::<Result<_>>()?;
        let (there, own) = (brokers.len(), self.shared.own.len());
        ensure!(there == own, "{there} brokers, and ports before {own}");
        self.shared.brokers.get_or_init(|| brokers);
        Ok(())
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
        let asked = timeout(ASKED_WITHIN, happened.cancelled()).await;
        if asked.is_err() {
            // Nobody waits for it any more.
            self.shared.fate(call as i16);
        }
        asked.with_context(|| format!("nobody asked for {call:?}"))
    }
}

impl Shared {
    /// What befalls the answer to this call; an order counts once.
    fn fate(&self, key: i16) -> Option<(Fate, DropGuard)> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, fate, happening) = order.take_if(|(call, ..)| *call as i16 == key)?;
        Some((fate, happening))
    }

    /// Puts this proxy's ports where the brokers' stand.
    fn redirect(&self, answer: &mut [u8]) -> Result<()> {
        let brokers = self.brokers()?;
        let mut at = 0;
        while let Some(found) = answer[at..].windows(HOST.len()).position(|bytes| bytes == HOST) {
            at += found + HOST.len();
            let Some(port) = answer.get_mut(at..at + 4) else {
                break;
            };
            let own = brokers.iter().zip(&self.own);
            let mut own = own.filter(|(broker, _)| port == i32::from(**broker).to_be_bytes());
            if let Some((_, own)) = own.next() {
                port.copy_from_slice(&i32::from(*own).to_be_bytes());
            }
        }
        Ok(())
    }

    fn brokers(&self) -> Result<&Vec<u16>> {
        self.brokers.get().context("there are no brokers yet")
    }
}

/// Where an answer may say where a broker is.
fn addresses_in(key: i16, answer: &mut [u8]) -> &mut [u8] {
    const TOLD: [Call; 2] = [Call::Metadata, Call::FindCoordinator];
    /// Where a leader has moved to is told behind the records.
    const REDIRECTS: [Call; 2] = [Call::Produce, Call::Fetch];
    const MOST_OF_REDIRECTS: usize = 256;
    let is = |calls: [Call; 2]| calls.iter().any(|call| *call as i16 == key);
    let end = answer.len();
    let from = match key {
        _ if is(TOLD) => 0,
        _ if is(REDIRECTS) => end.saturating_sub(MOST_OF_REDIRECTS),
        _ => end,
    };
    &mut answer[from..]
}

/// Stands before one of the brokers.
async fn serve(listener: TcpListener, at: usize, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        // A client whose broker is away is hung up on, as the broker's machine would.
        connections.spawn(async move {
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                biased;
                _ = cut.wait_for(|cut| *cut) => false,
                carried = carry(client, at, &shared) => carried.is_ok(),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries requests and answers, until either end hangs up or an answer is lost.
async fn carry(client: TcpStream, at: usize, shared: &Shared) -> Result<()> {
    let broker = TcpStream::connect(("127.0.0.1", shared.brokers()?[at])).await?;
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
        shared.redirect(addresses_in(key, &mut answer))?;
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

    fn before(brokers: &[u16], own: &[u16]) -> Shared {
        Shared {
            brokers: OnceLock::from(brokers.to_vec()),
            own: own.to_vec(),
            cut: watch::Sender::new(false),
            order: Mutex::default(),
        }
    }

    fn at(port: i32) -> Vec<u8> {
        [b"x127.0.0.1".as_slice(), &port.to_be_bytes()].concat()
    }

    #[test]
    fn every_address_of_a_broker_becomes_the_proxys() {
        let shared = before(&[9092, 9094], &[19092, 9092]);
        let mut answer = [at(9092), at(9093), at(9094), at(9092)].concat();
        shared.redirect(&mut answer).unwrap();
        assert_eq!(answer, [at(19092), at(9093), at(9092), at(19092)].concat());
    }

    #[test]
    fn records_are_left_as_they_are() {
        let (mut told, mut moved) = (at(9092).repeat(20), at(9092).repeat(40));
        assert_eq!(addresses_in(Call::Metadata as i16, &mut told).len(), 280);
        assert_eq!(addresses_in(Call::Fetch as i16, &mut moved).len(), 256);
        assert!(addresses_in(Call::EndTxn as i16, &mut moved).is_empty());
    }

    #[test]
    fn an_order_counts_once_and_for_its_call_alone() {
        let happened = CancellationToken::new();
        let shared = before(&[1], &[2]);
        *shared.order.lock().unwrap() = Some((Call::EndTxn, Fate::Lost, happened.clone().drop_guard()));
        assert!(shared.fate(Call::Produce as i16).is_none());
        let (fate, happening) = shared.fate(Call::EndTxn as i16).unwrap();
        assert!(matches!(fate, Fate::Lost) && shared.fate(Call::EndTxn as i16).is_none());
        assert!(!happened.is_cancelled());
        drop(happening);
        assert!(happened.is_cancelled());
    }
}
