//! One backend on a thread of its own, so that a call that never comes back can be given up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_rpc::error::chain;

use super::candidate::{Candidate, Make};
use crate::model::backend::{BackendError, Description, Interrupt, Outage};
use crate::model::tokenizer::Tokens;

/// A process that was frozen finds its time-out over before the answer that lies ready.
const GRACE: Duration = Duration::from_millis(200);

pub(in crate::model) type Answer = Result<Vec<Vec<f32>>, BackendError>;

/// What the thread says.
enum Said {
    /// It has made its backend, or could not.
    Made(Result<Made, String>),
    /// What the backend answered.
    Answered(Answer),
}

/// What came of waiting for it.
#[derive(Debug)]
pub(in crate::model) enum Waited<T> {
    /// This.
    Got(T),
    /// Nothing in time.
    Hung,
    /// Its thread has ended, by a panic.
    Died,
}

/// A backend that has been made.
pub(in crate::model) struct Made {
    pub(in crate::model) description: Description,
    /// Ends a call that hangs.
    pub(in crate::model) interrupt: Option<Interrupt>,
}

/// Whether it has been made.
pub(super) enum Making {
    NotYet,
    Made(Made),
    Failed(String),
}

/// A backend on its thread.
pub(in crate::model) struct Instance {
    jobs: SyncSender<Vec<Tokens>>,
    said: Receiver<Said>,
    thread: JoinHandle<()>,
}

impl Instance {
    /// Begins to make a candidate's backend.
    pub(in crate::model) fn make(candidate: &Candidate) -> std::io::Result<Self> {
        let (jobs, next) = sync_channel::<Vec<Tokens>>(1);
        let (say, said) = sync_channel(1);
        let make = candidate.make.clone();
        let thread = std::thread::Builder::new()
            .name(format!("model-{}", candidate.name))
            .spawn(move || work(&*make, &next, &say))?;
        Ok(Self { jobs, said, thread })
    }

    /// Whether it has been made by now.
    pub(super) fn made(&self) -> Making {
        match self.said.try_recv() {
            Ok(said) => making(said),
            Err(TryRecvError::Empty) => Making::NotYet,
            Err(TryRecvError::Disconnected) => Making::Failed(DIED.into()),
        }
    }

    /// Waits until it has been made.
    pub(in crate::model) fn wait_made(&self, limit: Duration) -> Result<Made, String> {
        let making = match self.hear(limit) {
            Waited::Got(said) => making(said),
            Waited::Hung => Making::NotYet,
            Waited::Died => Making::Failed(DIED.into()),
        };
        match making {
            Making::Made(made) => Ok(made),
            Making::Failed(why) => Err(why),
            Making::NotYet => Err(format!("it did not start within {} s", limit.as_secs_f32())),
        }
    }

    /// Asks it, and waits for so long at most. After [`Waited::Hung`] and [`Waited::Died`] it is of no use any more.
    pub(in crate::model) fn embed(&self, inputs: &[&Tokens], limit: Duration) -> Waited<Answer> {
        let inputs = inputs.iter().map(|tokens| (*tokens).clone()).collect();
        if self.jobs.send(inputs).is_err() {
            return Waited::Died;
        }
        match self.hear(limit) {
            Waited::Got(Said::Answered(answer)) => Waited::Got(answer),
            // It is asked after it said that it was made: it has nothing else to say.
            Waited::Got(Said::Made(_)) | Waited::Died => Waited::Died,
            Waited::Hung => Waited::Hung,
        }
    }

    /// As [`Self::embed`], where it is all one why there is no answer.
    pub(in crate::model) fn answer(&self, inputs: &[&Tokens], limit: Duration) -> Answer {
        match self.embed(inputs, limit) {
            Waited::Got(answer) => answer,
            Waited::Hung => Err(Outage::Broken(hangs(limit)).into()),
            Waited::Died => Err(Outage::Broken(DIED_AT_WORK.into()).into()),
        }
    }

    /// Gives it up: its thread ends when its call comes back, if it ever does.
    pub(super) fn give_up(self) -> JoinHandle<()> {
        self.thread
    }

    fn hear(&self, limit: Duration) -> Waited<Said> {
        let late = || self.said.recv_timeout(GRACE);
        let heard = match self.said.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => late(),
            heard => heard,
        };
        match heard {
            Ok(said) => Waited::Got(said),
            Err(RecvTimeoutError::Timeout) => Waited::Hung,
            Err(RecvTimeoutError::Disconnected) => Waited::Died,
        }
    }
}

const DIED: &str = "its thread died";
pub(super) const DIED_AT_WORK: &str = "it died while it computed";

pub(super) fn hangs(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f32())
}

fn making(said: Said) -> Making {
    match said {
        Said::Made(Ok(made)) => Making::Made(made),
        Said::Made(Err(why)) => Making::Failed(why),
        Said::Answered(_) => Making::Failed("it answers what it was not asked".into()),
    }
}

/// Until nobody asks or listens any more. A panic ends the thread, and whoever asked is told so.
fn work(make: &Make, jobs: &Receiver<Vec<Tokens>>, say: &SyncSender<Said>) {
    let mut backend = match make() {
        Ok(backend) => backend,
        Err(error) => {
            // Nobody may listen any more.
            let _ = say.send(Said::Made(Err(chain(&error))));
            return;
        }
    };
    let made = Made {
        description: backend.describe(),
        interrupt: backend.interrupt(),
    };
    if say.send(Said::Made(Ok(made))).is_err() {
        return;
    }
    while let Ok(inputs) = jobs.recv() {
        let inputs: Vec<&Tokens> = inputs.iter().collect();
        // What the panic said is in the log; the backend is not asked again.
        let Ok(answer) = catch_unwind(AssertUnwindSafe(|| backend.embed(&inputs))) else {
            return;
        };
        let ends = matches!(answer, Err(BackendError::Outage(Outage::Broken(_))));
        if say.send(Said::Answered(answer)).is_err() || ends {
            return;
        }
    }
}
