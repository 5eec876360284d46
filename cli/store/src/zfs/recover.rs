//! Finishes what killed commands had begun with data sets, and removes data sets.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{DataSet, DataSets, SetSnapshot, remove_empty};
use crate::building::is_alive;
use crate::error::StoreError;
use crate::layout::{IMAGE, NEW, OLD};
use crate::name::Name;

/// Something that a killed command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// A data set that was being made or removed.
    Set(DataSet),
    /// A state that is not mounted.
    Unmounted(DataSet),
    /// A snapshot that is nobody's, and not yet told to go.
    Hidden(SetSnapshot),
    /// A snapshot that was taken for a reset.
    Reset(SetSnapshot),
}

impl Leftover {
    /// Where it is, or would be.
    pub(crate) fn path(&self, sets: &DataSets) -> PathBuf {
        match self {
            Self::Set(set) | Self::Unmounted(set) => set.mountpoint.clone(),
            Self::Hidden(it) | Self::Reset(it) => {
                snapshot_dir(&sets.place("", &it.state), &it.name)
            }
        }
    }

    /// What it is and what becomes of it.
    pub(crate) fn explanation(&self) -> &'static str {
        match self {
            Self::Set(_) => {
                "a data set that a killed command was making or removing: it is destroyed"
            }
            Self::Unmounted(_) => "a state whose data set is not mounted: it is mounted",
            Self::Hidden(_) => "a snapshot that a killed command was removing: the rest is removed",
            Self::Reset(_) => {
                "a snapshot for a reset whose command was killed: it goes if the image is still there"
            }
        }
    }
}

/// Where the content of a data set's snapshot is seen.
pub(crate) fn snapshot_dir(set: &Path, snapshot: &str) -> PathBuf {
    set.join(".zfs/snapshot").join(snapshot)
}

/// What tells one image of a state from the next one: its number and when it was made.
pub(crate) fn identity(image: &Path) -> Option<String> {
    let metadata = fs::metadata(image).ok()?;
    let made = metadata.created().or_else(|_| metadata.modified()).ok()?;
    let made = made.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}:{}", metadata.ino(), made.as_nanos()))
}

impl DataSets {
    /// What killed commands left.
    pub(crate) fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        let mut found = Vec::new();
        for set in self.all()? {
            let (new, old) = (self.place(NEW, &set.name), self.place(OLD, &set.name));
            if set.mountpoint == old || (set.mountpoint == new && !is_alive(&new)?) {
                found.push(Leftover::Set(set));
            } else if set.mountpoint == self.place("", &set.name) && !set.mounted {
                found.push(Leftover::Unmounted(set));
            }
        }
        for snapshot in self.snapshots()? {
            if snapshot.name.starts_with('.') && !snapshot.deferred {
                found.push(Leftover::Hidden(snapshot));
            } else if snapshot.reset.is_some() {
                found.push(Leftover::Reset(snapshot));
            }
        }
        Ok(found)
    }

    /// Finishes what killed commands had begun.
    pub(crate) fn recover(&self) -> Result<(), StoreError> {
        for leftover in self.leftovers()? {
            match leftover {
                Leftover::Set(set) => self.destroy(&set)?,
                Leftover::Unmounted(set) => self.change(&["mount", &self.name(&set.name)])?,
                Leftover::Reset(snapshot) => self.end_reset(&snapshot)?,
                // Destroying a data set changes which there are.
                Leftover::Hidden(_) => {}
            }
        }
        self.forget_hidden()
    }

    /// An image that a reset did not come to remove stays, and its snapshot was for nothing.
    fn end_reset(&self, snapshot: &SetSnapshot) -> Result<(), StoreError> {
        let image = self.place("", &snapshot.state).join(IMAGE);
        if identity(&image) == snapshot.reset {
            return self.destroy_snapshot(snapshot);
        }
        self.reset_done((&snapshot.state, &snapshot.name))
    }

    /// Removes a state with its snapshots. It is away at once, and then its content goes.
    pub(crate) fn remove(&self, state: &Name) -> Result<(), StoreError> {
        self.hide(state)?;
        let mut sets = self.all()?.into_iter();
        match sets.find(|set| set.name == *state) {
            Some(set) => self.destroy(&set)?,
            None => return Ok(()),
        }
        self.forget_hidden()
    }

    /// Destroys a data set. What was made from its snapshots keeps what it needs of them.
    pub(crate) fn destroy(&self, set: &DataSet) -> Result<(), StoreError> {
        loop {
            let snapshots = self.snapshots()?;
            let mut its = snapshots.iter().filter(|it| it.state == set.name);
            let Some(needed) = its.clone().find(|it| !it.clones.is_empty()) else {
                break;
            };
            // A clone gets all snapshots up to its own, and may have some of the same names.
            its.try_for_each(|it| self.hide_snapshot(it).map(drop))?;
            match needed.clones.first() {
                Some(heir) => self.change(&["promote", heir])?,
                None => break,
            }
        }
        if set.mountpoint == self.place(OLD, &set.name) {
            // Whoever hid it may have been killed before this.
            remove_empty(&self.place("", &set.name));
        }
        self.change(&["destroy", "-r", &self.name(&set.name)])?;
        remove_empty(&set.mountpoint);
        Ok(())
    }

    /// Destroys what was being made at `dir`.
    pub(crate) fn abandon(&self, state: &Name, dir: &Path) -> Result<(), StoreError> {
        self.destroy(&DataSet {
            name: state.clone(),
            mountpoint: dir.to_owned(),
            mounted: true,
        })
    }

    /// Has every snapshot that is nobody's go as soon as nothing depends on it.
    fn forget_hidden(&self) -> Result<(), StoreError> {
        for snapshot in self.snapshots()? {
            if snapshot.name.starts_with('.') && !snapshot.deferred {
                self.forget_snapshot((&snapshot.state, &snapshot.name))?;
            }
        }
        Ok(())
    }
}
