//! `reset`: a state without an image again. The next slot that boots with it makes a new one.

use std::fs;

use crate::assignments::Assignments;
use crate::error::StoreError;
use crate::name::Name;
use crate::snapshot::{Consistency, Facts, Manifest, begin_locked, require_free};
use crate::store::{Locked, Store};
use crate::zfs::DataSets;
use crate::zfs::recover::identity;
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
        let facts = Facts::unhalted(Consistency::Stopped, slot.as_ref());
        if locked.store().new_in_data_sets()?.is_some()
            && let Some(sets) = locked.data_set_of(state)?
        {
            return reset_set(&locked, sets, (state, snapshot, facts)).map(|()| true);
        }
        begin_locked(&locked, state, snapshot)?.commit_by_moving((&path, &claimed), facts)?;
        Ok(true)
    }
}

/// Resets a state that is a data set: once the snapshot is there, the image can go.
fn reset_set(
    locked: &Locked<'_>,
    sets: &DataSets,
    (state, snapshot, facts): (&Name, &Name, Facts),
) -> Result<(), StoreError> {
    require_free(locked, state, snapshot)?;
    let image = locked.layout().image(state);
    let bytes = fs::metadata(&image).map(|image| image.len());
    let bytes = bytes.map_err(StoreError::at("inspect", &image))?;
    let manifest = Manifest::now((state, snapshot), Some(bytes), facts);
    sets.snapshot(&manifest, identity(&image).as_deref())?;
    durable::remove_file(&image)?;
    sets.reset_done((state, snapshot.as_str()))
}
