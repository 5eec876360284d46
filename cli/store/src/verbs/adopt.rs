//! `create` from a slot: the image that a slot has of its own becomes a state.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::assign::Conflict;
use super::clone::NewState;
use crate::assignments::Change;
use crate::error::StoreError;
use crate::image::{self, Progress};
use crate::name::Name;
use crate::store::{Locked, Store};

/// What became of a slot's own image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Where the old image is, if it had to be copied to another file system.
    pub backup: Option<PathBuf>,
}

impl Store {
    /// Makes the state `state` with the image that `slot` has of its own, and gives it to the slot.
    /// Within a file system the image is moved, else it is copied and kept as a backup.
    ///
    /// # Errors
    /// When the slot has no such image or uses it, the name is taken, or the host refuses.
    pub fn adopt(
        &self,
        slot: &Name,
        state: &Name,
        progress: Progress<'_>,
    ) -> Result<Adopted, StoreError> {
        let (copy, _kept) = {
            let locked = self.lock()?;
            let path = require_own(&locked, slot)?;
            locked.require_free(state)?;
            // The slot cannot start with the image until it has the state.
            let kept = image::open_shared(&path)?;
            if device(&path)? == device(&locked.layout().states())? {
                Change::adopt(slot, state).make(&locked)?;
                return Ok(Adopted { backup: None });
            }
            (NewState::begin(&locked, state, path)?, kept)
        };
        copy.fill(self, progress)?;
        let assigned = self.assign(slot, state, Conflict::Refuse)?;
        Ok(Adopted {
            backup: assigned.backup,
        })
    }
}

fn require_own(locked: &Locked<'_>, slot: &Name) -> Result<PathBuf, StoreError> {
    let path = locked.layout().link(slot);
    if fs::symlink_metadata(&path).is_ok_and(|own| own.is_file()) {
        return Ok(path);
    }
    Err(StoreError::NoOwnImage {
        slot: slot.clone(),
        path,
    })
}

fn device(path: &Path) -> Result<u64, StoreError> {
    let metadata = fs::metadata(path).map_err(StoreError::at("inspect", path))?;
    Ok(metadata.dev())
}
