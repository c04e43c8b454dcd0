//! Backends that follow a script, one after another as they are made.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::*;
use crate::model::ModelError;
use crate::model::tokenizer::tests::trapped;

const GATE: Gate = Gate {
    dimensions: 2,
    normalized: false,
};

/// What a scripted backend does with a batch. Canaries it passes until it is `dead`.
#[derive(Clone)]
enum Act {
    Embed,
    Answer(BackendError),
    Nonsense,
    Panic,
    /// Until the test ends.
    Hang,
}
use Act::{Answer, Embed, Hang, Nonsense, Panic};

/// One life of a backend: what it does with its batches, and whether its canary fails once the last is done.
#[derive(Clone)]
struct Life {
    acts: VecDeque<Act>,
    then_dead: bool,
}

fn life(acts: impl IntoIterator<Item = Act>) -> Option<Life> {
    Some(Life {
        acts: acts.into_iter().collect(),
        then_dead: false,
    })
}
fn mortal(acts: impl IntoIterator<Item = Act>) -> Option<Life> {
    life(acts).map(|life| Life {
        then_dead: true,
        ..life
    })
}
/// It cannot be made.
const STILLBORN: Option<Life> = None;

struct Scripted {
    life: Life,
    device: String,
    hold: Arc<Mutex<mpsc::Receiver<()>>>,
}

fn is_canary(inputs: &[&Tokens]) -> bool {
    // The only batch here of three: its sentences have no word that the test's tokenizer knows.
    inputs.len() == 3
}

impl Backend for Scripted {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        if is_canary(inputs) {
            return match self.life.then_dead && self.life.acts.is_empty() {
                true => Err(BackendError::Failed("no device".into())),
                false => Ok(vec![vec![1.0, 0.0], vec![1.0, 0.1], vec![0.0, 1.0]]),
            };
        }
        let vectors = || Ok(vec![vec![1.0, 2.0]; inputs.len()]);
        match self.life.acts.pop_front().unwrap_or(Embed) {
            Embed => vectors(),
            Answer(error) => Err(error),
            Nonsense => Ok(vec![vec![f32::NAN, 0.0]; inputs.len()]),
            Panic => panic!("as the script says"),
            Hang => {
                let _ = self.hold.lock().unwrap().recv();
                vectors()
            }
        }
    }
    fn describe(&self) -> Description {
        Description {
            device: self.device.clone(),
            ..Description::of_none("script")
        }
    }
}

type Answered = Result<Vec<Vec<f32>>, BackendError>;

struct Scene {
    failover: Failover,
    /// Ends what hangs.
    _hold: mpsc::Sender<()>,
}

/// The lives of `first`, and of `second` which stands in for it. After the last given, each lives for ever.
fn scene(lives: [Vec<Option<Life>>; 2]) -> Scene {
    let (hold, held) = mpsc::channel();
    let held = Arc::new(Mutex::new(held));
    let candidate = |(name, lives): (&'static str, Vec<Option<Life>>)| {
        let (lives, held) = (Mutex::new(VecDeque::from(lives)), held.clone());
        Candidate {
            name,
            make: Arc::new(move || {
                let life = lives.lock().unwrap().pop_front().unwrap_or_else(|| life([]));
                let life = life.ok_or_else(|| ModelError::Session {
                    what: "no such device".into(),
                })?;
                Ok(Box::new(Scripted {
                    life,
                    device: name.into(),
                    hold: held.clone(),
                }))
            }),
            remote: false,
            call_limit: Duration::from_millis(100),
        }
    };
    let [first, second] = lives;
    let candidates = [("first", first), ("second", second)].map(candidate).into();
    // A rest longer than any test: whoever rests stays away, unless the test says otherwise.
    let patience = Patience {
        rest: (Duration::from_secs(3_600), Duration::from_secs(3_600)),
        ..Patience::default()
    };
    Scene {
        failover: Failover::new(candidates, trapped(16), GATE, patience),
        _hold: hold,
    }
}

impl Scene {
    fn ask(&mut self) -> Result<usize, BackendError> {
        self.ask_of(1).map(|vectors| vectors.len())
    }
    fn ask_of(&mut self, texts: usize) -> Answered {
        let tokens = trapped(16).tokenize("a b").unwrap();
        self.failover.embed(&vec![&tokens; texts])
    }
    fn canary(&mut self) -> Result<(), Outage> {
        self.failover.canary(&trapped(16), GATE)
    }
    fn device(&self) -> String {
        self.failover.describe().device
    }
}

fn failed() -> BackendError {
    BackendError::Failed("CUDA error".into())
}

/// A row for each thing that happens after a first batch: whether another instance computes then.
#[test]
fn each_instance_at_work_has_a_number_of_its_own() {
    for (lives, other) in [
        (vec![life([])], false),
        (vec![life([Embed, Answer(failed()), Embed])], false),
        (vec![life([Embed, Panic])], true),
        (vec![mortal([Embed])], true),
        (vec![life([Embed, Panic]), STILLBORN], true),
    ] {
        let mut scene = scene([lives, vec![]]);
        assert_eq!(scene.ask(), Ok(1));
        let first = scene.failover.incarnation();
        assert_eq!((scene.ask(), scene.canary()), (Ok(1), Ok(())));
        assert_eq!(scene.failover.incarnation() != first, other);
    }
}

/// A row for each way to be lost: the batch is computed by the same one, made anew.
#[test]
fn what_is_lost_once_is_made_again_and_computes_the_batch() {
    let broken = || Answer(Outage::Broken("gone".into()).into());
    for lost in [
        mortal([Answer(failed())]),
        mortal([Nonsense]),
        life([Panic]),
        life([Hang]),
        life([broken()]),
    ] {
        let mut scene = scene([vec![lost, life([Embed])], vec![]]);
        assert_eq!(scene.ask(), Ok(1));
        assert_eq!(scene.device(), "first");
    }
}

#[test]
fn what_is_lost_twice_is_stood_in_for() {
    let mut scene = scene([vec![life([Embed, Panic]), life([Panic])], vec![]]);
    assert_eq!((scene.ask(), scene.device()), (Ok(1), "first".into()));
    assert_eq!((scene.ask(), scene.device()), (Ok(1), "second".into()));
    assert_eq!(scene.failover.describe().stands_in_for, Some("first"));
}

#[test]
fn what_cannot_be_made_or_sings_wrongly_is_stood_in_for() {
    for unable in [STILLBORN, mortal([])] {
        let mut scene = scene([vec![unable], vec![]]);
        assert_eq!((scene.ask(), scene.device()), (Ok(1), "second".into()));
    }
}

/// A row for each answer that is about the batch, or that a working backend gives.
#[test]
fn what_passes_its_canary_is_not_lost_for_a_batch() {
    let patience = Outage::RateLimited {
        retry_after: Duration::from_secs(7),
    };
    for error in [
        BackendError::Refused("400".into()),
        BackendError::TooLarge("no memory".into()),
        patience.into(),
    ] {
        let mut scene = scene([vec![life([Answer(error.clone())])], vec![]]);
        assert_eq!(scene.ask_of(2), Err(error));
        assert_eq!((scene.ask(), scene.device()), (Ok(1), "first".into()));
    }
}

#[test]
fn what_fails_and_passes_its_canary_is_asked_once_more() {
    for suspicious in [Answer(failed()), Nonsense] {
        let mut scene = scene([vec![life([suspicious.clone(), Embed])], vec![]]);
        assert_eq!(
            (scene.ask_of(1), scene.device()),
            (Ok(vec![vec![1.0, 2.0]]), "first".into())
        );
        let mut scene = self::scene([vec![life([suspicious.clone(), suspicious.clone()])], vec![]]);
        match (scene.ask_of(1), suspicious) {
            (Err(error), Answer(_)) => assert_eq!(error, failed()),
            (Ok(vectors), _) => assert!(vectors[0][0].is_nan(), "{vectors:?}"),
            (answer, _) => panic!("{answer:?}"),
        }
        assert_eq!(scene.device(), "first");
    }
}

/// A row for each answer that another backend may not give, though this one computes.
#[test]
fn what_cannot_take_a_single_text_or_refuses_us_is_stood_in_for() {
    for error in [
        BackendError::TooLarge("no memory".into()),
        Outage::Config("401".into()).into(),
    ] {
        let mut scene = scene([vec![life([Answer(error)])], vec![]]);
        assert_eq!((scene.ask(), scene.device()), (Ok(1), "second".into()));
    }
}

#[test]
fn a_canary_that_is_wrong_costs_a_backend_its_place() {
    let mut scene = scene([vec![mortal([Embed]), STILLBORN], vec![]]);
    assert_eq!((scene.ask(), scene.device()), (Ok(1), "first".into()));
    // It still gives vectors, and no meanings.
    assert_eq!((scene.canary(), scene.device()), (Ok(()), "second".into()));
}

#[test]
fn with_nobody_else_a_canary_that_is_wrong_is_an_outage() {
    let mut scene = scene([vec![mortal([Embed]), STILLBORN], vec![STILLBORN]]);
    assert_eq!(scene.ask(), Ok(1));
    assert!(matches!(scene.canary(), Err(Outage::Broken(_))));
}

#[test]
fn a_batch_that_takes_down_three_is_to_blame_and_nobody_rests_for_it() {
    let mut scene = scene([vec![life([Panic]), life([Panic])], vec![life([Panic])]]);
    let Err(BackendError::Failed(why)) = scene.ask() else {
        panic!("it is not to blame");
    };
    assert!(why.contains('3'), "{why}");
    assert_eq!((scene.ask(), scene.device()), (Ok(1), "first".into()));
}

#[test]
fn when_none_works_each_says_why() {
    let mut scene = scene([vec![STILLBORN], vec![STILLBORN]]);
    let Err(BackendError::Outage(Outage::Broken(why))) = scene.ask() else {
        panic!("no outage");
    };
    assert!(
        why.contains("first:") && why.contains("second:") && why.contains("no such device"),
        "{why}"
    );
}

#[test]
fn the_preferred_one_takes_over_when_it_sings_again() {
    let mut scene = scene([vec![STILLBORN, STILLBORN, life([])], vec![]]);
    assert_eq!((scene.ask(), scene.device()), (Ok(1), "second".into()));
    // Its rests are over.
    scene.failover.patience.rest = (Duration::ZERO, Duration::ZERO);
    (scene.failover.seats[0].rest, scene.failover.seats[0].not_before) = (Duration::ZERO, None);
    let limit = Instant::now() + Duration::from_secs(20);
    let stood_in = scene.failover.incarnation();
    while scene.device() != "first" {
        assert_eq!(scene.ask(), Ok(1));
        assert!(Instant::now() < limit, "it never took over");
        std::thread::yield_now();
    }
    assert_ne!(scene.failover.incarnation(), stood_in);
    assert!(
        scene.failover.seats[1].instance.is_none(),
        "the other one keeps its memory"
    );
}

#[test]
fn what_hangs_twice_is_not_made_a_third_time_while_it_hangs() {
    let mut scene = scene([vec![life([Hang]), life([Hang]), life([])], vec![]]);
    assert_eq!((scene.ask(), scene.device()), (Ok(1), "second".into()));
    scene.failover.absolve();
    assert!(!scene.failover.seats[0].may_be_made());
}
