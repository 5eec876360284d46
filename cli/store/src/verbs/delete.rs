//! `delete`: a state with all its snapshots, or one snapshot.

use std::fs::File;
use std::path::Path;

use crate::assignments::Assignments;
use crate::building::{self, beside};
use crate::durable;
use crate::error::StoreError;
use crate::image;
use crate::kept::Kept;
use crate::layout::{IMAGE, NEW, OLD, names};
use crate::name::{Name, SnapshotRef};
use crate::store::{Locked, Store};

impl Store {
    /// Fails when [`Self::delete`] would, as things are now: nobody is asked to confirm in vain.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn check_delete(&self, state: &Name) -> Result<(), StoreError> {
        claim(&self.lock()?, state).map(drop)
    }

    /// Removes a state and its snapshots.
    ///
    /// # Errors
    /// When a slot has it, somebody uses it or one of its snapshots, or the host refuses.
    pub fn delete(&self, state: &Name) -> Result<(), StoreError> {
        let locked = self.lock()?;
        let claimed = claim(&locked, state)?;
        match locked.data_set_of(state)? {
            Some(sets) => {
                // An open file would keep the data set where it is. No command opens it now.
                drop(claimed);
                sets.remove(state)
            }
            None => remove(&locked.layout().state(state)),
        }
    }

    /// Removes one snapshot, and says of which state it was.
    ///
    /// # Errors
    /// When there is no such snapshot or several, somebody reads it, or the host refuses.
    pub fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<Name, StoreError> {
        let locked = self.lock()?;
        let (state, kept) = self.resolve(snapshot)?;
        delete_kept(&locked, &kept)?;
        Ok(state)
    }
}

/// As [`Store::delete_snapshot`], for a command that holds the store's lock.
pub(super) fn delete_snapshot(
    locked: &Locked<'_>,
    state: &Name,
    snapshot: &Name,
) -> Result<(), StoreError> {
    match locked.store().kept(state, snapshot)? {
        Some(kept) => delete_kept(locked, &kept),
        None => Ok(()),
    }
}

fn delete_kept(locked: &Locked<'_>, kept: &Kept) -> Result<(), StoreError> {
    image::require_unused(&kept.image(locked.layout()))?;
    match (kept, locked.store().data_sets()) {
        (Kept::Files(dir), _) => remove(dir),
        (Kept::DataSet(it), Some(sets)) => sets.destroy_snapshot(it),
        (Kept::DataSet(_), None) => Ok(()),
    }
}

/// Fails when a state is somebody's or used by somebody, and keeps everybody away from its image.
fn claim(locked: &Locked<'_>, state: &Name) -> Result<Option<File>, StoreError> {
    locked.require_state(state)?;
    let layout = locked.layout();
    if let Some(slot) = Assignments::read(layout)?.owner_of(layout, state)? {
        let state = state.clone();
        return Err(StoreError::Assigned { state, slot });
    }
    let claimed = image::claim(&layout.image(state))?;
    require_idle(&layout.snapshots(state))?;
    Ok(claimed)
}

/// Fails when a snapshot is being made or read.
fn require_idle(snapshots: &Path) -> Result<(), StoreError> {
    for name in durable::entries(snapshots)? {
        if name.starts_with(NEW) {
            building::refuse_while_alive(&snapshots.join(name))?;
        }
    }
    for name in names(snapshots)? {
        image::require_unused(&snapshots.join(name.as_str()).join(IMAGE))?;
    }
    Ok(())
}

/// Removes a directory: it is away at once, and then its content goes.
fn remove(place: &Path) -> Result<(), StoreError> {
    let old = beside(place, OLD);
    durable::remove_tree(&old)?;
    durable::rename(place, &old)?;
    durable::remove_tree(&old)
}
