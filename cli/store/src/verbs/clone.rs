//! `clone`: an independent copy of a state, without its snapshots.

use std::fs::File;
use std::path::PathBuf;

use crate::building::Building;
use crate::copy::Copied;
use crate::error::StoreError;
use crate::image::{self, Progress};
use crate::layout::IMAGE;
use crate::name::Name;
use crate::store::{Locked, Store};

impl Store {
    /// Makes the state `new` with the content of `state`, which nobody writes.
    ///
    /// # Errors
    /// When `state` is in use, the new name is taken, or the host refuses.
    pub fn clone_state(
        &self,
        state: &Name,
        new: &Name,
        progress: Progress<'_>,
    ) -> Result<Copied, StoreError> {
        let copy = {
            let locked = self.lock()?;
            locked.require_state(state)?;
            NewState::begin(&locked, new, locked.layout().image(state))?
        };
        copy.fill(self, progress)
    }
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
            building: Building::begin(locked, &locked.layout().state(new))?,
            source_path,
        })
    }

    /// Copies the image and gives the state its name.
    pub(super) fn fill(self, store: &Store, progress: Progress<'_>) -> Result<Copied, StoreError> {
        let mut copied = Copied::Shared { bytes: 0 };
        if let Some(source) = &self.source {
            let path = self.building.dir().join(IMAGE);
            let places = (path.as_path(), self.source_path.as_path());
            copied = image::copy_new(source, places, store.method(), progress)?;
        }
        self.building.finish()?;
        Ok(copied)
    }
}
