//! `clone`: an independent copy of a state, without its snapshots.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::building::Building;
use crate::copy::Copied;
use crate::error::StoreError;
use crate::identity::{self, Identity};
use crate::image::{self, Progress};
use crate::layout::{IMAGE, NEW};
use crate::name::Name;
use crate::store::{Locked, Store};
use crate::zfs::DataSets;

impl Store {
    /// Makes the state `new` with the content of `state`, which nobody writes. Its guest is the same
    /// machine or another one.
    ///
    /// # Errors
    /// When `state` is in use, the new name is taken, or the host refuses.
    pub fn clone_state(
        &self,
        (state, identity): (&Name, Identity),
        new: &Name,
        progress: Progress<'_>,
    ) -> Result<Copied, StoreError> {
        let copy = {
            let locked = self.lock()?;
            locked.require_state(state)?;
            if let Some(sets) = locked.store().new_in_data_sets()?
                && sets.of(state)?.is_some()
            {
                return clone_set(&locked, (sets, state), (new, identity));
            }
            let copy = NewState::begin(&locked, new, locked.layout().image(state))?;
            identity::write(identity, &locked.layout().state(state), copy.dir())?;
            copy
        };
        copy.fill(self, progress)
    }
}

/// Clones a state that is a data set. The snapshot in between goes with the clone.
fn clone_set(
    locked: &Locked<'_>,
    (sets, state): (&DataSets, &Name),
    (new, identity): (&Name, Identity),
) -> Result<Copied, StoreError> {
    locked.require_free(new)?;
    let image = locked.layout().image(state);
    let _nobody_writes = image::open_shared(&image)?;
    let between = format!("{NEW}{new}");
    sets.snapshot_hidden((state, &between))?;
    let cloned = clone_snapshot(locked, (sets, (state, &between)), (new, identity));
    let forgotten = sets.forget_snapshot((state, &between));
    cloned.and_then(|copied| forgotten.map(|()| copied))
}

/// Makes a state of a data set's snapshot.
pub(super) fn clone_snapshot(
    locked: &Locked<'_>,
    (sets, source): (&DataSets, (&Name, &str)),
    (new, identity): (&Name, Identity),
) -> Result<Copied, StoreError> {
    locked.require_free(new)?;
    let building = Building::begin_clone(locked, (sets, source), new)?;
    if identity == Identity::Reset {
        identity::write(identity, building.dir(), building.dir())?;
    }
    let image = fs::metadata(building.dir().join(IMAGE));
    building.finish_locked(locked)?;
    Ok(Copied::Shared {
        bytes: image.map_or(0, |image| image.len()),
    })
}

/// A state that is being filled from an image. The image cannot change or go meanwhile.
pub(super) struct NewState {
    building: Building,
    source: Option<File>,
    source_path: PathBuf,
}

impl NewState {
    /// Decides that `new` will be made from the image at `source_path`, which may be absent.
    pub(super) fn begin(
        locked: &Locked<'_>,
        new: &Name,
        source_path: PathBuf,
    ) -> Result<Self, StoreError> {
        locked.require_free(new)?;
        Ok(Self {
            source: image::open_shared(&source_path)?,
            building: Building::begin_state(locked, new)?,
            source_path,
        })
    }

    /// Where it is being made.
    pub(super) fn dir(&self) -> &Path {
        self.building.dir()
    }

    /// Copies the image and gives the state its name.
    pub(super) fn fill(self, store: &Store, progress: Progress<'_>) -> Result<Copied, StoreError> {
        let mut copied = Copied::Shared { bytes: 0 };
        if let Some(source) = &self.source {
            let path = self.building.dir().join(IMAGE);
            let places = (path.as_path(), self.source_path.as_path());
            copied = image::copy_new(source, places, store.method(), progress)?;
        }
        self.building.finish(store)?;
        Ok(copied)
    }
}
