//! `reset`: a state without an image again. The next slot that boots with it makes a new one.

use crate::assignments::Assignments;
use crate::error::StoreError;
use crate::name::Name;
use crate::snapshot::{Consistency, Facts, begin_locked};
use crate::store::Store;
use crate::{durable, image};

/// What becomes of the image that a state had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It becomes a snapshot of this name, without being copied.
    Snapshot(Name),
    /// It is removed.
    Nothing,
}

impl Store {
    /// Takes the image away from a state that nobody uses. False if it had none.
    ///
    /// # Errors
    /// When the state is in use, the snapshot's name is taken, or the host refuses.
    pub fn reset(&self, state: &Name, keep: &Keep) -> Result<bool, StoreError> {
        let locked = self.lock()?;
        locked.require_state(state)?;
        let path = locked.layout().image(state);
        let Some(claimed) = image::claim(&path)? else {
            return Ok(false);
        };
        let Keep::Snapshot(snapshot) = keep else {
            durable::remove_file(&path)?;
            return Ok(true);
        };
        let layout = locked.layout();
        let slot = Assignments::read(layout)?.owner_of(layout, state)?;
        let facts = Facts {
            consistency: Consistency::Stopped,
            slot: slot.map(String::from),
            pause_us: None,
            copied_bytes: 0,
        };
        begin_locked(&locked, state, snapshot)?.commit_by_moving((&path, &claimed), facts)?;
        Ok(true)
    }
}
