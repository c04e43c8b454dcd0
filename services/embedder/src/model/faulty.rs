//! A device that fails on order: [`millrace_failpoints::device`]. In builds without failpoints nothing of it is left.

use std::thread::sleep;
use std::time::Duration;

use millrace_failpoints::{ACTIVE, device};

use super::backend::{Backend, BackendError, Description, Interrupt, Outage};
use super::{ModelError, Tokens};

const SLOWER_BY: Duration = Duration::from_millis(500);
/// Batches of several texts that a device out of memory still has room for.
const MEMORY_TOKENS: usize = 128;
/// Between two looks at whether it still hangs.
const LOOKS: Duration = Duration::from_millis(10);

/// Whether a session can be made on it.
pub(super) fn makes() -> Result<(), ModelError> {
    match device::GONE.is_active() {
        true => Err(ModelError::Session {
            what: device::GONE.does.into(),
        }),
        false => Ok(()),
    }
}

/// A backend on a device that fails on order.
pub(super) fn on_order(backend: Box<dyn Backend>) -> Box<dyn Backend> {
    match ACTIVE {
        true => Box::new(Faulty(backend)),
        false => backend,
    }
}

struct Faulty(Box<dyn Backend>);

impl Backend for Faulty {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        if device::GONE.is_active() {
            return Err(Outage::Broken(device::GONE.does.into()).into());
        }
        if device::ERROR.is_active() {
            return Err(BackendError::Failed(device::ERROR.does.into()));
        }
        let padded_tokens = inputs.len() * inputs.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        if device::OUT_OF_MEMORY.is_active() && inputs.len() > 1 && padded_tokens > MEMORY_TOKENS {
            return Err(BackendError::TooLarge(device::OUT_OF_MEMORY.does.into()));
        }
        if device::SLOW.is_active() {
            sleep(SLOWER_BY);
        }
        while device::HANGS.is_active() {
            sleep(LOOKS);
        }
        let mut vectors = self.0.embed(inputs)?;
        if device::NOT_A_NUMBER.is_active() {
            vectors.iter_mut().for_each(|vector| vector.fill(f32::NAN));
        }
        if device::NONSENSE.is_active() {
            vectors.iter_mut().for_each(|vector| vector.fill(1.0));
        }
        Ok(vectors)
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.0.interrupt()
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }
}
