//! `snapshot` of a state that no slot runs. A running slot's is filled by its process, with
//! [`begin`](crate::snapshot::begin).

use std::fs;

use crate::assignments::Assignments;
use crate::error::StoreError;
use crate::image::{self, Progress};
use crate::name::Name;
use crate::snapshot::{Consistency, Facts, Manifest, begin_locked, require_free};
use crate::store::{Locked, Store};
use crate::zfs::DataSets;

impl Store {
    /// Takes a snapshot of a state that nobody writes. No slot can start with the state meanwhile.
    ///
    /// # Errors
    /// When the state is in use, the name is taken or the host refuses.
    pub fn snapshot(
        &self,
        state: &Name,
        snapshot: &Name,
        progress: Progress<'_>,
    ) -> Result<Manifest, StoreError> {
        let (pending, source, mut facts) = {
            let locked = self.lock()?;
            locked.require_state(state)?;
            let source = image::open_shared(&locked.layout().image(state))?;
            let slot = Assignments::read(locked.layout())?.owner_of(locked.layout(), state)?;
            let facts = Facts::unhalted(Consistency::Stopped, slot.as_ref());
            if locked.store().new_in_data_sets()?.is_some()
                && let Some(sets) = locked.data_set_of(state)?
            {
                return snapshot_set(&locked, sets, (state, snapshot, facts));
            }
            (begin_locked(&locked, state, snapshot)?, source, facts)
        };
        let Some(source) = source else {
            return pending.commit_without_image(facts);
        };
        let to = (&source, pending.image_file(), pending.image_path());
        facts.copied_bytes = image::copy(to, self.method(), progress)?.copied_bytes();
        pending.commit(facts)
    }

    /// Whether a running slot's snapshots of this state are taken by ZFS.
    ///
    /// # Errors
    /// When ZFS does not tell.
    pub fn has_data_set(&self, state: &Name) -> Result<bool, StoreError> {
        match self.new_in_data_sets()? {
            Some(sets) => Ok(sets.of(state)?.is_some()),
            None => Ok(false),
        }
    }

    /// Takes a snapshot of a state that `slot` runs with and that is a data set. The slot goes on
    /// meanwhile: ZFS takes it between two writes, after all that the guest was told is written.
    /// Nothing if the state is no data set, or snapshots are to be files.
    ///
    /// # Errors
    /// When the slot runs with another image, the name is taken or ZFS refuses.
    pub fn snapshot_running(
        &self,
        slot: &Name,
        (state, snapshot): (&Name, &Name),
        consistency: Consistency,
    ) -> Result<Option<Manifest>, StoreError> {
        if self.new_in_data_sets()?.is_none() {
            return Ok(None);
        }
        let locked = self.lock()?;
        let Some(sets) = locked.data_set_of(state)? else {
            return Ok(None);
        };
        if !image::is_held(&locked.layout().image(state))? {
            return Err(StoreError::OtherImage {
                slot: slot.clone(),
                state: state.clone(),
            });
        }
        let facts = Facts {
            // It ran on.
            pause_us: Some(0),
            ..Facts::unhalted(consistency, Some(slot))
        };
        snapshot_set(&locked, sets, (state, snapshot, facts)).map(Some)
    }
}

fn snapshot_set(
    locked: &Locked<'_>,
    sets: &DataSets,
    (state, snapshot, facts): (&Name, &Name, Facts),
) -> Result<Manifest, StoreError> {
    require_free(locked, state, snapshot)?;
    let bytes = fs::metadata(locked.layout().image(state)).ok();
    let bytes = bytes.map(|image| image.len());
    let manifest = Manifest::now((state, snapshot), bytes, facts);
    sets.snapshot(&manifest, None)?;
    Ok(manifest)
}
