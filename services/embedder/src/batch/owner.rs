//! The one owner of what waits: takes requests in, hands batches to the model's thread, hands vectors out.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millrace_telemetry::Span;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::engine::{Done, InputError, Job};
use super::patience::Patience;
use super::trace::{Batch, Running};
use super::waiting::{Class, Item, Next, Waiting};
use super::{BatchError, BatchLimits, EmbedError, ModelInfo};
use crate::cache::probation::Probation;
use crate::cache::{Key, Lot};
use crate::model::backend::REMOTE;
use crate::model::{Description, Tokens, Vector};

/// Texts of one caller, who gets all their vectors or one error.
pub(super) struct Request {
    pub(super) class: Class,
    /// Whose turn it takes.
    pub(super) tenant: Arc<str>,
    pub(super) inputs: Vec<Tokens>,
    /// What each is remembered by; empty without a cache.
    pub(super) keys: Vec<Key>,
    pub(super) reply: Reply,
    /// Whose texts they are.
    pub(super) span: Span,
}

type Reply = oneshot::Sender<Result<Vec<Vector>, EmbedError>>;

/// Which text of which request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    request: u64,
    index: usize,
    tokens: usize,
    /// What its vector is remembered by.
    key: Option<Key>,
}

struct Open {
    reply: Reply,
    vectors: Vec<Option<Vector>>,
    left: usize,
    span: Span,
}

/// A canary sings when the model was idle for so long: a device that died unseen is found before a caller finds it.
const CANARY_AFTER: Duration = Duration::from_secs(5);
/// It also sings between batches, this long after the last one: a device may give vectors that are no meanings.
const CANARY_AT_WORK: Duration = Duration::from_secs(10);
/// At an endpoint each is a call that somebody may have to pay for.
const CANARY_AFTER_REMOTE: Duration = Duration::from_secs(30);
/// While the model is broken, or another backend stands in for the preferred one, it is asked more often.
const CANARY_WHILE_BROKEN: Duration = Duration::from_secs(2);

/// Of a canary's sentences, about.
const CANARY_TOKENS: usize = 48;

/// What was said when the model gave no answer, and what had been said before.
struct Suspected {
    before: super::Health,
    said: super::Health,
}

pub(super) struct Owner {
    queries: mpsc::Receiver<Request>,
    documents: mpsc::Receiver<Request>,
    jobs: mpsc::Sender<Job<Place>>,
    done: mpsc::Receiver<Done<Place>>,
    health: watch::Sender<super::Health>,
    waiting: Waiting<(Place, Tokens)>,
    open: HashMap<u64, Open>,
    next_request: u64,
    prepared_batches: usize,
    /// What the model has, in its order; none for a canary.
    running: VecDeque<Option<Running>>,
    /// Since when the first of them runs.
    runs_since: Instant,
    patience: Patience,
    /// The first of them was found to give no answer.
    suspected: Option<Suspected>,
    last_run: Instant,
    last_canary: Instant,
    model: Arc<ModelInfo>,
    at_work: watch::Receiver<Description>,
    probation: Probation,
    remember: Option<mpsc::Sender<Lot>>,
}

/// The ends of the channels that the owner holds.
pub(super) struct Channels {
    pub(super) queries: mpsc::Receiver<Request>,
    pub(super) documents: mpsc::Receiver<Request>,
    pub(super) jobs: mpsc::Sender<Job<Place>>,
    pub(super) done: mpsc::Receiver<Done<Place>>,
    /// The engine's, which says how its last answer was. Here it is said that there is none.
    pub(super) health: watch::Sender<super::Health>,
    pub(super) at_work: watch::Receiver<Description>,
    pub(super) model: Arc<ModelInfo>,
    /// None without a cache.
    pub(super) remember: Option<mpsc::Sender<Lot>>,
}

impl Owner {
    pub(super) fn new(limits: BatchLimits, channels: Channels) -> Self {
        let mut waiting = Waiting::new(limits.clone());
        waiting.for_streams(channels.at_work.borrow().streams);
        Self {
            queries: channels.queries,
            documents: channels.documents,
            jobs: channels.jobs,
            done: channels.done,
            health: channels.health,
            prepared_batches: limits.prepared_batches,
            waiting,
            open: HashMap::new(),
            next_request: 0,
            running: VecDeque::new(),
            runs_since: Instant::now(),
            patience: Patience::default(),
            suspected: None,
            last_run: Instant::now(),
            last_canary: Instant::now(),
            model: channels.model,
            at_work: channels.at_work,
            probation: Probation::default(),
            remember: channels.remember,
        }
    }

    /// Works until every handle is gone and all that was asked is answered.
    pub(super) async fn run(&mut self) -> Result<(), BatchError> {
        let (mut queries_open, mut documents_open) = (true, true);
        loop {
            let wake = match self.running.len() {
                0 => self.start().await?,
                _ => {
                    self.prepare().await?;
                    None
                }
            };
            let busy = !self.running.is_empty();
            if !queries_open && !documents_open && !busy && self.waiting.is_empty() {
                if self.probation.is_empty() {
                    return Ok(());
                }
                // Its verdict leaves nothing pending.
                self.give_canary().await?;
                continue;
            }
            let (query_room, room) = (
                self.waiting.has_room(Class::Query),
                self.waiting.has_room(Class::Document),
            );
            let wake = match busy {
                true => self.runs_since + self.patience.limit(self.padded_tokens()),
                false => wake.unwrap_or_else(|| self.next_canary()),
            };
            tokio::select! {
                biased;
                done = self.done.recv(), if busy => self.finish(done.ok_or(BatchError::ModelThread)?),
                request = self.queries.recv(), if query_room && queries_open => match request {
                    Some(request) => self.take(request),
                    None => queries_open = false,
                },
                request = self.documents.recv(), if room && documents_open => match request {
                    Some(request) => self.take(request),
                    None => documents_open = false,
                },
                () = tokio::time::sleep_until(wake), if !busy => {}
                () = tokio::time::sleep_until(wake), if busy && self.may_suspect() => self.suspect(),
            }
            self.take_all_ready();
        }
    }

    /// A batch is cut from all that is known: what has already come is taken in before the choice.
    fn take_all_ready(&mut self) {
        while self.waiting.has_room(Class::Query)
            && let Ok(query) = self.queries.try_recv()
        {
            self.take(query);
        }
        while self.waiting.has_room(Class::Document)
            && let Ok(request) = self.documents.try_recv()
        {
            self.take(request);
        }
    }

    fn take(&mut self, request: Request) {
        let since = Instant::now();
        let id = self.next_request;
        self.next_request += 1;
        let count = request.inputs.len();
        self.open.insert(
            id,
            Open {
                reply: request.reply,
                vectors: vec![None; count],
                left: count,
                span: request.span,
            },
        );
        let mut keys = request.keys.into_iter();
        for (index, tokens) in request.inputs.into_iter().enumerate() {
            let place = Place {
                request: id,
                index,
                tokens: tokens.len(),
                key: keys.next(),
            };
            let item = Item {
                tokens: tokens.len(),
                since,
                tenant: request.tenant.clone(),
                work: (place, tokens),
            };
            self.waiting.push(request.class, item);
        }
    }

    /// Gives the idle model something to do; says when to look again if nothing is to be done yet.
    async fn start(&mut self) -> Result<Option<Instant>, BatchError> {
        self.drop_unwanted();
        let now = Instant::now();
        if self.is_time_to_sing(now) {
            self.give_canary().await?;
            return Ok(None);
        }
        match self.waiting.next(now) {
            Next::Run(batch) => self.hand_over(batch).await?,
            Next::WaitUntil(at) => return Ok(Some(at)),
            Next::Idle if now >= self.next_canary() => self.give_canary().await?,
            Next::Idle => {}
        }
        Ok(None)
    }

    /// Gives the model what it is to do next, while it is at work.
    async fn prepare(&mut self) -> Result<(), BatchError> {
        while self.running.len() <= self.prepared_batches {
            if self.is_time_to_sing(Instant::now()) {
                self.give_canary().await?;
                continue;
            }
            self.drop_unwanted();
            let Some(batch) = self.waiting.next_of_documents() else {
                break;
            };
            self.hand_over(batch).await?;
        }
        Ok(())
    }

    fn is_time_to_sing(&self, now: Instant) -> bool {
        // One that was given already makes room.
        let wanted = self.probation.is_full() && self.running.iter().all(Option::is_some);
        self.is_local() && !self.waiting.is_empty() && (wanted || now >= self.last_canary + CANARY_AT_WORK)
    }

    async fn give_canary(&mut self) -> Result<(), BatchError> {
        self.last_canary = Instant::now();
        self.give(Job::Canary, None).await
    }

    fn drop_unwanted(&mut self) {
        self.open.retain(|_, open| !open.reply.is_closed());
        self.waiting.retain(|(place, _)| self.open.contains_key(&place.request));
    }

    async fn hand_over(&mut self, batch: Vec<Item<(Place, Tokens)>>) -> Result<(), BatchError> {
        let rows: Vec<_> = batch.into_iter().map(|item| item.work).collect();
        let running = self.running(&rows);
        self.give(Job::Batch(rows), Some(running)).await
    }

    async fn give(&mut self, job: Job<Place>, running: Option<Running>) -> Result<(), BatchError> {
        self.jobs.send(job).await.map_err(|_| BatchError::ModelThread)?;
        if self.running.is_empty() {
            self.runs_since = Instant::now();
        }
        self.running.push_back(running);
        Ok(())
    }

    fn running(&self, rows: &[(Place, Tokens)]) -> Running {
        let lengths = || rows.iter().map(|(_, tokens)| tokens.len());
        let batch = Batch {
            texts: rows.len(),
            tokens: lengths().sum(),
            padded_tokens: rows.len() * lengths().max().unwrap_or(0),
        };
        let requests: BTreeSet<u64> = rows.iter().map(|(place, _)| place.request).collect();
        let open = requests.iter().filter_map(|request| self.open.get(request));
        let spans: Vec<&Span> = open.map(|open| &open.span).collect();
        Running::begin(&self.model, self.at_work.borrow().name, batch, &spans)
    }

    fn next_canary(&self) -> Instant {
        let good = *self.health.borrow() == super::Health::Good;
        let at_work = self.at_work.borrow();
        self.last_run
            + match (good && at_work.stands_in_for.is_none(), at_work.device == REMOTE) {
                (false, _) => CANARY_WHILE_BROKEN,
                (true, false) => CANARY_AFTER,
                (true, true) => CANARY_AFTER_REMOTE,
            }
    }

    /// Vectors are remembered once they are proven, also those whose caller has left: it may ask again.
    fn learn(&mut self, done: &Done<Place>) {
        for (place, result) in &done.results {
            if let (Some(key), Ok(vector)) = (place.key, result) {
                self.probation.hold(key, vector, place.tokens);
            }
        }
        let proven = self.probation.judge(done.proof);
        if let (Some(remember), false) = (&self.remember, proven.is_empty())
            && let Err(refused) = remember.try_send(proven)
        {
            // The disk is slower than the model. At the end of the process too: nobody waits for a cache.
            tracing::debug!(%refused, "vectors are not remembered");
        }
    }

    fn is_local(&self) -> bool {
        self.at_work.borrow().device != REMOTE
    }

    /// Once a job. An endpoint has a time of its own to answer in, and says what it is about.
    fn may_suspect(&self) -> bool {
        self.suspected.is_none() && self.is_local()
    }

    /// The model has said nothing for too long.
    fn suspect(&mut self) {
        let seconds = self.runs_since.elapsed().as_secs_f64();
        tracing::warn!(seconds, "the model gives no answer");
        let why = format!("no answer for {seconds:.1} s, far longer than the last batches took");
        let said = super::Health::Broken(why);
        let before = self.health.send_replace(said.clone());
        self.suspected = Some(Suspected { before, said });
    }

    /// There is an answer after all. The engine has said how it was, unless it had done so just before.
    fn rehabilitate(&mut self) {
        if let Some(Suspected { before, said }) = self.suspected.take() {
            self.health.send_if_modified(|health| {
                let ours = *health == said;
                if ours {
                    *health = before;
                }
                ours
            });
        }
    }

    /// Of what the model has now.
    fn padded_tokens(&self) -> usize {
        let running = self.running.front().and_then(Option::as_ref);
        running.map_or(CANARY_TOKENS, Running::padded_tokens)
    }

    fn finish(&mut self, done: Done<Place>) {
        let now = Instant::now();
        if self.at_work.has_changed().unwrap_or(false) {
            self.waiting.for_streams(self.at_work.borrow_and_update().streams);
            self.patience.forget();
        } else {
            self.patience.took(now - self.runs_since, self.padded_tokens());
        }
        (self.last_run, self.runs_since) = (now, now);
        self.rehabilitate();
        if let Some(running) = self.running.pop_front().flatten() {
            let error = done.results.iter().find_map(|(_, result)| result.as_ref().err());
            running.end(&self.model, error.map(|error| (error.code(), error.to_string())));
        }
        self.learn(&done);
        for (place, result) in done.results {
            // A request is gone once one of its texts failed, or its caller left.
            let Some(open) = self.open.get_mut(&place.request) else {
                continue;
            };
            let answer = match result {
                Ok(vector) => {
                    open.vectors[place.index] = Some(vector);
                    open.left -= 1;
                    if open.left > 0 {
                        continue;
                    }
                    Ok(std::mem::take(&mut open.vectors).into_iter().flatten().collect())
                }
                Err(InputError::Failed(why)) => Err(EmbedError::Failed {
                    index: place.index,
                    why,
                }),
                Err(InputError::Refused(why)) => Err(EmbedError::Refused {
                    index: place.index,
                    why,
                }),
                Err(InputError::Outage(outage)) => Err(EmbedError::Outage(outage)),
            };
            if let Some(open) = self.open.remove(&place.request) {
                // The caller may have left meanwhile.
                let _ = open.reply.send(answer);
            }
        }
    }
}
