//! The engine before a backend that follows a script.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::batch::fake::{self, Fake};
use crate::model::Description;

type Answer = Result<Vec<Vec<f32>>, BackendError>;

/// Answers in this order.
struct Script(VecDeque<Answer>);

impl Backend for Script {
    fn embed(&mut self, _: &[&Tokens]) -> Answer {
        self.0.pop_front().expect("a call that the script does not know")
    }
    fn describe(&self) -> Description {
        Description {
            version: "1".into(),
            ..Description::of_none("script")
        }
    }
}

/// What becomes of a batch of so many texts, and of the health, which was good. The script must be used up.
fn run(texts: usize, script: impl IntoIterator<Item = Answer>) -> (Vec<Computed>, Health) {
    let (_, batcher, _) = fake::batcher();
    let model = Loaded {
        backend: Box::new(Script(script.into_iter().collect())),
        ..batcher.model
    };
    let (health, seen) = watch::channel(Health::Good);
    let (at_work, _) = watch::channel(model.backend.describe());
    let mut engine = Engine::new(model, health, at_work);
    let tokens = engine.tokenizer.tokenize("a").unwrap();
    let done = engine.batch((0..texts).map(|at| (at, tokens.clone())).collect());
    let left = engine.backend.embed(&[]);
    assert!(left.is_err_and(|e| e == end()), "calls are left");
    let health = seen.borrow().clone();
    (done.results.into_iter().map(|(_, result)| result).collect(), health)
}

fn end() -> BackendError {
    BackendError::Failed("the end".into())
}

fn patience() -> Outage {
    let retry_after = Duration::from_secs(7);
    Outage::RateLimited { retry_after }
}

fn vectors(count: usize) -> Answer {
    Ok(vec![vec![1.0, 1.0]; count])
}

#[test]
fn an_outage_while_a_batch_is_halved_ends_the_halving() {
    let away = Outage::Broken("away".into());
    let script = [
        Err(BackendError::Failed("one of four".into())),
        vectors(2),
        Err(BackendError::Failed("one of two".into())),
        Err(away.clone().into()),
        Err(end()),
    ];
    let (results, health) = run(4, script);
    assert!(results[..2].iter().all(Result::is_ok));
    let outage = Err(InputError::Outage(away));
    assert_eq!(results[2..], [outage.clone(), outage]);
    assert_eq!(health, Health::Broken("away".into()));
}

#[test]
fn a_model_that_goes_away_judges_no_text() {
    for fault in [BackendError::Refused("400".into()), BackendError::Failed("NaN".into())] {
        let script = [
            Err(fault.clone()),
            Err(fault),
            Err(Outage::Broken("away".into()).into()),
            Err(end()),
        ];
        let (results, _) = run(2, script);
        let away = Err(InputError::Outage(Outage::Broken("away".into())));
        assert_eq!(results, [away.clone(), away]);
    }
}

#[test]
fn a_batch_too_large_is_nobodys_fault() {
    let script = [
        Err(BackendError::Refused("413".into())),
        vectors(1),
        vectors(1),
        Err(end()),
    ];
    let (results, health) = run(2, script);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(health, Health::Good);
}

#[test]
fn whose_fault_it_is_stays_open_while_the_canary_has_to_be_patient() {
    let script = [
        Err(BackendError::Refused("400".into())),
        Err(patience().into()),
        Err(end()),
    ];
    let (results, health) = run(1, script);
    assert_eq!(results, [Err(InputError::Outage(patience()))]);
    assert_eq!(health, Health::Good);
}

#[test]
fn a_batch_without_memory_is_halved_and_the_next_of_its_size_unasked() {
    let too_large = || Err(BackendError::TooLarge("no memory".into()));
    let script = [
        too_large(),
        too_large(),
        vectors(1),
        vectors(1),
        vectors(1),
        vectors(1),
        Err(end()),
    ];
    let (results, health) = run(4, script);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(health, Health::Good);
}

/// A device elsewhere.
struct Remote(Fake);

impl Backend for Remote {
    fn embed(&mut self, inputs: &[&Tokens]) -> Answer {
        self.0.embed(inputs)
    }
    fn incarnation(&self) -> u64 {
        self.0.incarnation()
    }
    fn describe(&self) -> Description {
        Description {
            device: REMOTE.into(),
            ..self.0.describe()
        }
    }
}

/// What may happen before a batch of this text: what the batch shows then, and the canary after it.
struct Event {
    happens: fn(&Fake),
    text: &'static str,
    batch: Proof,
    canary: Proof,
}

/// A row for each thing that may happen to the vectors that no canary has confirmed.
#[test]
fn a_job_shows_whether_what_came_before_it_can_be_trusted() {
    let event = |happens, text, batch, canary| Event {
        happens,
        text,
        batch,
        canary,
    };
    for (row, event) in [
        event(|_| (), "a", Proof::None, Proof::Passed),
        // The batch fails, and its canary passes.
        event(|_| (), "b b b", Proof::Passed, Proof::Passed),
        event(Fake::lie, "a", Proof::None, Proof::Lost),
        event(Fake::reborn, "a", Proof::Lost, Proof::Passed),
        event(Fake::depend_on_the_batch, "a", Proof::Lost, Proof::Lost),
        event(|fake| fake.break_down(true), "a", Proof::Lost, Proof::Lost),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, batcher, fake) = fake::batcher();
        assert_eq!(
            proofs(batcher.model, &fake, &event),
            (event.batch, event.canary),
            "row {row}"
        );
        let (_, batcher, fake) = fake::batcher();
        let remote = Loaded {
            backend: Box::new(Remote(fake.clone())),
            ..batcher.model
        };
        let at_its_word = match event.batch {
            Proof::None => Proof::Passed,
            shown => shown,
        };
        assert_eq!(proofs(remote, &fake, &event), (at_its_word, event.canary), "row {row}");
    }
}

fn proofs(model: Loaded, fake: &Fake, event: &Event) -> (Proof, Proof) {
    let (health, _) = watch::channel(Health::Good);
    let (at_work, _) = watch::channel(model.backend.describe());
    let mut engine = Engine::new(model, health, at_work);
    let tokens = engine.tokenizer.tokenize(event.text).unwrap();
    (event.happens)(fake);
    (engine.batch(vec![((), tokens)]).proof, engine.sing::<()>().proof)
}
