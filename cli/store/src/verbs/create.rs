//! `create`: a state without an image. The first slot that boots with it makes one.

use crate::building::Building;
use crate::error::StoreError;
use crate::name::Name;
use crate::store::Store;

impl Store {
    /// Makes a state that has no image yet.
    ///
    /// # Errors
    /// When the name is taken or the host refuses.
    pub fn create(&self, state: &Name) -> Result<(), StoreError> {
        let locked = self.lock()?;
        locked.require_free(state)?;
        Building::begin_state(&locked, state)?.finish_locked(&locked)
    }
}
