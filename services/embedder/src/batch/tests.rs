//! The owner with a test in the model's place, and the whole batcher around a fake backend.

use super::engine::{Done, InputError, Job};
use super::owner::Place;
use super::*;
use crate::cache::key_of;
use crate::cache::probation::{BOUND, Proof};
use crate::model::backend::REMOTE;
use crate::model::{Backend, Gate, Outage, Tokens};

fn tokens(len: usize) -> Tokens {
    Tokens {
        ids: vec![1; len].into(),
        types: vec![0; len].into(),
        text: None,
    }
}

fn limits() -> BatchLimits {
    BatchLimits {
        max_batch_tokens: 100,
        max_waiting_tokens: 300,
        queue_requests: 2,
        ..BatchLimits::default()
    }
}

/// An owner whose model is the test.
struct Rig {
    queries: mpsc::Sender<Request>,
    documents: mpsc::Sender<Request>,
    jobs: mpsc::Receiver<Job<Place>>,
    done: mpsc::Sender<Done<Place>>,
    lots: mpsc::Receiver<Lot>,
    health: watch::Receiver<Health>,
    at_work: watch::Sender<Description>,
}

fn done(results: impl IntoIterator<Item = (Place, Result<Vector, InputError>)>) -> Done<Place> {
    Done {
        results: results.into_iter().collect(),
        proof: Proof::None,
    }
}

type Answer = oneshot::Receiver<Result<Vec<Vector>, EmbedError>>;

impl Rig {
    fn new() -> (Self, Owner) {
        Self::before(fake::Fake::default().describe(), limits())
    }

    fn before(at_work: Description, limits: BatchLimits) -> (Self, Owner) {
        let (queries, query_requests) = mpsc::channel(limits.queue_requests);
        let (documents, document_requests) = mpsc::channel(limits.queue_requests);
        let (give, jobs) = mpsc::channel(1 + limits.prepared_batches);
        let (done, results) = mpsc::channel(1);
        let (remember, lots) = mpsc::channel(1);
        let (health, seen) = watch::channel(Health::Good);
        let (tell_at_work, at_work) = watch::channel(at_work);
        let channels = Channels {
            queries: query_requests,
            documents: document_requests,
            jobs: give,
            done: results,
            health,
            at_work,
            model: Arc::new(fake::info()),
            remember: Some(remember),
        };
        let rig = Self {
            queries,
            documents,
            jobs,
            done,
            lots,
            health: seen,
            at_work: tell_at_work,
        };
        (rig, Owner::new(limits, channels))
    }

    fn ask(&self, class: Class, lengths: &[usize]) -> Answer {
        self.ask_keyed(class, lengths, Vec::new())
    }

    fn ask_keyed(&self, class: Class, lengths: &[usize], keys: Vec<Key>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let inputs = lengths.iter().map(|len| tokens(*len)).collect();
        let queue = match class {
            Class::Query => &self.queries,
            Class::Document => &self.documents,
        };
        queue
            .try_send(Request {
                tenant: Arc::default(),
                class,
                inputs,
                keys,
                reply,
                span: Span::none(),
            })
            .unwrap();
        answer
    }

    /// The lengths of a batch that the model is given and keeps.
    async fn given(&mut self) -> Vec<usize> {
        match self.jobs.recv().await {
            Some(Job::Batch(batch)) => batch.iter().map(|(_, tokens)| tokens.len()).collect(),
            _ => panic!("no batch"),
        }
    }

    /// Whether the owner has nothing more to give by now: it has looked at all that came.
    async fn nothing_more(&mut self) -> bool {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        self.jobs.try_recv().is_err()
    }

    /// The next batch, answered with each text's length; gives the lengths.
    async fn work(&mut self) -> Vec<usize> {
        let Some(Job::Batch(batch)) = self.jobs.recv().await else {
            panic!("no batch");
        };
        let lengths = batch.iter().map(|(_, tokens)| tokens.len()).collect();
        let vector = |len: usize| GATE.pass(vec![len as f32, 1.0]).unwrap();
        let results = batch
            .into_iter()
            .map(|(place, tokens)| (place, Ok(vector(tokens.len()))));
        self.done.send(done(results)).await.unwrap();
        lengths
    }
}

const GATE: Gate = Gate {
    dimensions: 2,
    normalized: false,
};

fn firsts(vectors: &[Vector]) -> Vec<f32> {
    vectors.iter().map(|vector| vector.values()[0]).collect()
}

/// Runs an owner beside a test until the test is through; its channels then close and it must end well.
macro_rules! beside {
    ($owner:ident, $rig:ident, $test:expr) => {
        let test = async move {
            let mut $rig = $rig;
            $test
        };
        let (ended, ()) = tokio::join!($owner.run(), test);
        ended.unwrap();
    };
}

#[tokio::test(start_paused = true)]
async fn queries_run_before_documents_and_alone() {
    let (rig, mut owner) = Rig::new();
    let document = rig.ask(Class::Document, &[40, 40, 40]);
    let query = rig.ask(Class::Query, &[39]);
    beside!(owner, rig, {
        assert_eq!(rig.work().await, [39]);
        assert_eq!(firsts(&query.await.unwrap().unwrap()), [39.0]);
        assert_eq!(rig.work().await, [40, 40]);
        assert_eq!(rig.work().await, [40]);
        assert_eq!(firsts(&document.await.unwrap().unwrap()), [40.0; 3]);
    });
}

#[tokio::test(start_paused = true)]
async fn documents_that_come_while_the_model_runs_share_the_next_batch() {
    let (rig, mut owner) = Rig::new();
    let first = rig.ask(Class::Document, &[90]);
    beside!(owner, rig, {
        let Some(Job::Batch(running)) = rig.jobs.recv().await else {
            panic!("no batch");
        };
        let answers = [rig.ask(Class::Document, &[8, 9]), rig.ask(Class::Document, &[7])];
        let failed = InputError::Failed("it says no".into());
        let result = running.into_iter().map(|(place, _)| (place, Err(failed.clone())));
        rig.done.send(done(result)).await.unwrap();
        let why = "it says no".into();
        assert_eq!(first.await.unwrap(), Err(EmbedError::Failed { index: 0, why }));
        assert_eq!(rig.work().await, [8, 9, 7]);
        let [two, one] = answers;
        assert_eq!(firsts(&two.await.unwrap().unwrap()), [8.0, 9.0]);
        assert_eq!(firsts(&one.await.unwrap().unwrap()), [7.0]);
    });
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_does_not_run() {
    let (rig, mut owner) = Rig::new();
    drop(rig.ask(Class::Document, &[50, 51]));
    let kept = rig.ask(Class::Document, &[52]);
    beside!(owner, rig, {
        assert_eq!(rig.work().await, [52]);
        assert!(kept.await.unwrap().is_ok());
    });
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_a_full_queue_refuses() {
    let (rig, mut owner) = Rig::new();
    // 300 tokens may wait; the model holds 100 of the first request, and is busy until the end.
    let first = rig.ask(Class::Document, &[100; 4]);
    beside!(owner, rig, {
        let Some(Job::Batch(running)) = rig.jobs.recv().await else {
            panic!("no batch");
        };
        assert_eq!(running.len(), 1);
        // Two fill the queue; the owner has no room and must leave them there.
        let more = [rig.ask(Class::Document, &[60]), rig.ask(Class::Document, &[60])];
        tokio::time::sleep(std::time::Duration::from_secs(9)).await;
        let (reply, _answer) = oneshot::channel();
        let (class, inputs) = (Class::Document, vec![tokens(1)]);
        let refused = rig.documents.try_send(Request {
            tenant: Arc::default(),
            class,
            inputs,
            keys: Vec::new(),
            reply,
            span: Span::none(),
        });
        assert!(matches!(refused, Err(TrySendError::Full(_))));
        let results = running
            .into_iter()
            .map(|(place, tokens)| (place, GATE.pass(vec![tokens.len() as f32, 1.0])));
        let results = results.map(|(place, vector)| (place, Ok(vector.unwrap())));
        rig.done.send(done(results)).await.unwrap();
        for expected in [&[100][..], &[100], &[100], &[60], &[60]] {
            assert_eq!(rig.work().await, expected);
        }
        assert_eq!(first.await.unwrap().unwrap().len(), 4);
        for answer in more {
            assert!(answer.await.unwrap().is_ok());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_model_at_work_is_asked_its_canary_too() {
    let (mut rig, mut owner) = Rig::new();
    let test = async {
        // There is always another batch, and each takes 3 s.
        let mut asked = vec![rig.ask(Class::Document, &[100])];
        for _ in 0..4 {
            asked.push(rig.ask(Class::Document, &[100]));
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            assert_eq!(rig.work().await, [100]);
        }
        assert!(matches!(rig.jobs.recv().await, Some(Job::Canary)));
    };
    tokio::select! {
        ended = owner.run() => panic!("{ended:?}"),
        () = test => {}
    }
}

/// There is no room for more that is not proven: the canary makes some, and is not asked twice.
#[tokio::test(start_paused = true)]
async fn a_full_probation_has_the_canary_sing_before_the_next_batch() {
    let limits = BatchLimits {
        max_batch_tokens: 2 * BOUND,
        max_batch_texts: 2 * BOUND,
        max_waiting_tokens: 8 * BOUND,
        prepared_batches: 1,
        ..limits()
    };
    let (mut rig, mut owner) = Rig::before(fake::Fake::default().describe(), limits);
    let test = async {
        let first = rig.ask_keyed(Class::Document, &[1; BOUND], vec![key_of("a"); BOUND]);
        assert_eq!(rig.work().await.len(), BOUND);
        assert!(first.await.unwrap().is_ok() && rig.lots.try_recv().is_err());
        let second = rig.ask_keyed(Class::Document, &[2 * BOUND], vec![key_of("b")]);
        assert!(matches!(rig.jobs.recv().await, Some(Job::Canary)));
        let third = rig.ask(Class::Document, &[2 * BOUND]);
        assert_eq!(rig.given().await, [2 * BOUND]);
        let sung = Done {
            proof: Proof::Passed,
            ..done([])
        };
        rig.done.send(sung).await.unwrap();
        assert_eq!(rig.lots.recv().await.unwrap().len(), BOUND);
        assert_eq!(rig.given().await, [2 * BOUND]);
        drop((second, third));
    };
    tokio::select! {
        ended = owner.run() => panic!("{ended:?}"),
        () = test => {}
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_cut_for_the_backend_that_is_at_work() {
    let streams = |streams| Description {
        streams,
        ..fake::Fake::default().describe()
    };
    let (rig, mut owner) = Rig::before(streams(2), limits());
    beside!(owner, rig, {
        let first = rig.ask(Class::Document, &[30, 30, 30]);
        let Some(Job::Batch(batch)) = rig.jobs.recv().await else {
            panic!("no batch");
        };
        assert_eq!(batch.len(), 2, "a text a stream");
        let second = rig.ask(Class::Document, &[30, 30]);
        rig.at_work.send_replace(streams(1));
        let vector = || GATE.pass(vec![1.0, 1.0]).unwrap();
        let results = batch.into_iter().map(|(place, _)| (place, Ok(vector())));
        rig.done.send(done(results)).await.unwrap();
        assert_eq!(rig.work().await, [30, 30, 30]);
        assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    });
}

/// A row for each thing that waits while a batch is at work: what is handed over beside it.
#[tokio::test(start_paused = true)]
async fn a_full_batch_of_documents_is_handed_over_while_another_one_runs() {
    for (prepared_batches, query, lengths, expected) in [
        (1, false, &[50, 50][..], Some(vec![50, 50])),
        (1, false, &[50], None),
        (1, true, &[50, 50], None),
        (0, false, &[50, 50], None),
    ] {
        let limits = BatchLimits {
            prepared_batches,
            ..limits()
        };
        let (mut rig, mut owner) = Rig::before(fake::Fake::default().describe(), limits);
        let test = async {
            let first = rig.ask(Class::Document, &[100]);
            assert_eq!(rig.given().await, [100]);
            let query = query.then(|| rig.ask(Class::Query, &[3]));
            let second = rig.ask(Class::Document, lengths);
            match &expected {
                Some(batch) => assert_eq!(rig.given().await, *batch),
                None => assert!(rig.nothing_more().await, "{lengths:?}"),
            }
            // Never a third.
            let third = expected.map(|_| rig.ask(Class::Document, &[100]));
            assert!(rig.nothing_more().await, "{lengths:?}");
            drop((first, second, third, query));
        };
        tokio::select! {
            ended = owner.run() => panic!("{ended:?}"),
            () = test => {}
        }
    }
}

/// A row for each kind of backend at work.
#[tokio::test(start_paused = true)]
async fn an_idle_model_is_asked_its_canary() {
    let local = fake::Fake::default().describe();
    let remote = Description {
        device: "remote".into(),
        ..local.clone()
    };
    let stand_in = Description {
        stands_in_for: Some("cuda"),
        ..local.clone()
    };
    for (at_work, seconds) in [(local, 5), (remote, 30), (stand_in, 2)] {
        let (rig, mut owner) = Rig::before(at_work, limits());
        beside!(owner, rig, {
            let began = tokio::time::Instant::now();
            assert!(matches!(rig.jobs.recv().await, Some(Job::Canary)));
            assert_eq!(began.elapsed().as_secs(), seconds);
            rig.done.send(done([])).await.unwrap();
        });
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn vectors_come_back_in_the_order_of_their_texts() {
    let (embedder, batcher, _) = fake::batcher();
    let test = async move {
        let asked = texts(&["a a a a a a", "a", "a a a", "b a"]);
        let vectors = embedder.embed(asked, Class::Document).await.unwrap();
        assert_eq!(firsts(&vectors), [6.0, 1.0, 3.0, 1.0]);
        assert_eq!(vectors[3].values(), [1.0, 1.0]);
        assert_eq!(embedder.embed(Vec::new(), Class::Query).await, Ok(Vec::new()));
    };
    let (ended, ()) = tokio::join!(batcher.run(), test);
    ended.unwrap();
}

#[tokio::test]
async fn a_text_that_does_not_fit_is_named_and_nothing_runs() {
    let (embedder, batcher, fake) = fake::batcher();
    let test = async move {
        for (bad, expected) in [
            (" ".to_owned(), TextError::Empty),
            (
                "a ".repeat(17),
                TextError::TooManyTokens {
                    tokens: 17,
                    max_tokens: 16,
                },
            ),
        ] {
            let result = embedder.embed(vec!["a".into(), bad], Class::Query).await;
            assert_eq!(
                result,
                Err(EmbedError::Text {
                    index: 1,
                    source: expected
                })
            );
        }
        assert_eq!(fake.calls(), 0);
    };
    let (ended, ()) = tokio::join!(batcher.run(), test);
    ended.unwrap();
}

#[tokio::test]
async fn one_bad_text_costs_nobody_else_their_vector() {
    let (embedder, batcher, _) = fake::batcher();
    let test = async move {
        let ask = |text: &str| embedder.embed(texts(&[text]), Class::Document);
        let zero = embedder.embed(texts(&["a", "x a", "x x a"]), Class::Document);
        let (good, bad, also_good, zero) = tokio::join!(ask("a a b"), ask("b b b"), ask("a b b"), zero);
        assert_eq!(firsts(&good.unwrap()), [2.0]);
        assert_eq!(firsts(&also_good.unwrap()), [1.0]);
        assert_eq!(firsts(&zero.unwrap()), [1.0, 1.0, 1.0]);
        let why = "three".into();
        assert_eq!(bad, Err(EmbedError::Failed { index: 0, why }));
        assert_eq!(*embedder.health().borrow(), Health::Good);
    };
    let (ended, ()) = tokio::join!(batcher.run(), test);
    ended.unwrap();
}

#[tokio::test]
async fn a_broken_model_is_not_the_texts_fault_and_comes_back() {
    let (embedder, batcher, fake) = fake::batcher();
    let test = async move {
        fake.break_down(true);
        let result = embedder.embed(texts(&["a"]), Class::Query).await;
        assert_eq!(
            result,
            Err(EmbedError::Outage(Outage::Broken("the device is gone".into())))
        );
        let mut health = embedder.health();
        assert!(matches!(&*health.borrow_and_update(), Health::Broken(_)));
        // No caller comes; the canary finds out.
        fake.break_down(false);
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, health.wait_for(|health| *health == Health::Good))
            .await
            .unwrap()
            .unwrap();
        assert!(embedder.embed(texts(&["a"]), Class::Query).await.is_ok());
    };
    let (ended, ()) = tokio::join!(batcher.run(), test);
    ended.unwrap();
}

#[tokio::test]
async fn a_dead_thread_ends_the_batcher_and_its_callers() {
    let (embedder, batcher, _) = fake::batcher();
    let asked = embedder.embed(texts(&["b b b b"]), Class::Query);
    let (ended, result) = tokio::join!(batcher.run(), asked);
    assert!(matches!(ended, Err(BatchError::ModelThread)));
    assert_eq!(result, Err(EmbedError::Stopped));
    assert_eq!(
        embedder.embed(texts(&["a"]), Class::Query).await,
        Err(EmbedError::Stopped)
    );
}

fn outages() -> [Outage; 3] {
    let retry_after = std::time::Duration::from_secs(7);
    [
        Outage::Broken("it is away".into()),
        Outage::Config("it knows no such key".into()),
        Outage::RateLimited { retry_after },
    ]
}

#[tokio::test]
async fn an_outage_is_everybodys_and_nothing_is_halved() {
    for outage in outages() {
        let (embedder, batcher, fake) = fake::batcher();
        let test = async move {
            fake.answer(Some(outage.clone().into()));
            let asked = embedder.embed(texts(&["a", "b", "a b", "b a"]), Class::Document);
            assert_eq!(asked.await, Err(EmbedError::Outage(outage.clone())));
            assert_eq!(fake.calls(), 1);
            let patient = matches!(outage, Outage::RateLimited { .. });
            assert_eq!(*embedder.health().borrow() == Health::Good, patient, "{outage}");
        };
        let (ended, ()) = tokio::join!(batcher.run(), test);
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_text_that_the_model_refuses_is_told_from_one_that_it_fails_on() {
    let (embedder, batcher, _) = fake::batcher();
    let test = async move {
        let ask = |text: &str| embedder.embed(texts(&["a", text]), Class::Document);
        let (good, failed, refused) = tokio::join!(ask("b"), ask("b b b"), ask("b b b b b"));
        assert_eq!(good.unwrap().len(), 2);
        let (index, why) = (1, "three".into());
        assert_eq!(failed, Err(EmbedError::Failed { index, why }));
        let why = "five".into();
        assert_eq!(refused, Err(EmbedError::Refused { index, why }));
    };
    let (ended, ()) = tokio::join!(batcher.run(), test);
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_model_that_gives_no_answer_is_told_of_and_an_endpoint_has_its_own_time() {
    let local = fake::Fake::default().describe();
    let remote = Description {
        device: REMOTE.into(),
        ..local.clone()
    };
    for (at_work, told) in [(local, true), (remote, false)] {
        let (mut rig, mut owner) = Rig::before(at_work, limits());
        let answer = rig.ask(Class::Document, &[100]);
        let test = async {
            assert_eq!(rig.given().await, [100]);
            tokio::time::sleep(std::time::Duration::from_secs(9)).await;
            assert_eq!(*rig.health.borrow(), Health::Good);
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            let health = rig.health.borrow().clone();
            match told {
                true => assert!(
                    matches!(&health, Health::Broken(why) if why.contains("no answer for 10.0 s")),
                    "{health:?}"
                ),
                false => assert_eq!(health, Health::Good),
            }
            drop((rig, answer));
        };
        // The test takes the model away: that ends the owner.
        let _ = tokio::join!(owner.run(), test);
    }
}
