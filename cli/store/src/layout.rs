//! Where everything lies.

use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::StoreError;
use crate::name::Name;

/// Begins the name of something that is being made.
pub(crate) const NEW: &str = ".new-";
/// Begins the name of something that is being removed.
pub(crate) const OLD: &str = ".old-";
/// Begins the name of a state whose import was interrupted and can go on.
pub(crate) const PART: &str = ".part-";
/// Name of every image.
pub(crate) const IMAGE: &str = "data.img";
/// Name of a snapshot's description.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The places of a store.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Directory of slots and states, `/var/lib/microvms`.
    pub root: PathBuf,
    /// Which slot has which state, `/etc/vm-state-assignments.json`.
    pub assignments: PathBuf,
}

impl Layout {
    /// Directory of all states.
    pub fn states(&self) -> PathBuf {
        self.root.join("states")
    }

    /// Directory of a state.
    pub fn state(&self, state: &Name) -> PathBuf {
        self.states().join(state.as_str())
    }

    /// Image of a state.
    pub fn image(&self, state: &Name) -> PathBuf {
        self.state(state).join(IMAGE)
    }

    /// Directory of a state's snapshots.
    pub fn snapshots(&self, state: &Name) -> PathBuf {
        self.state(state).join("snapshots")
    }

    /// Directory of a snapshot.
    pub fn snapshot(&self, state: &Name, snapshot: &Name) -> PathBuf {
        self.snapshots(state).join(snapshot.as_str())
    }

    /// The link that a slot's disk is opened through.
    pub fn link(&self, slot: &Name) -> PathBuf {
        self.root.join(slot.as_str()).join(IMAGE)
    }

    /// Directory of a slot.
    pub fn slot(&self, slot: &Name) -> PathBuf {
        self.root.join(slot.as_str())
    }

    /// Every slot that has a directory.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn slots(&self) -> Result<Vec<Name>, StoreError> {
        let mut slots = names(&self.root)?;
        slots.retain(|slot| slot.as_str() != "states");
        Ok(slots)
    }

    /// Every state.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn all_states(&self) -> Result<Vec<Name>, StoreError> {
        names(&self.states())
    }

    /// A change of assignments that is decided but perhaps not carried out.
    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join(".assign.json")
    }

    /// The file whose lock serialises commands.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// The state that a link of a slot leads to, by its text alone.
    pub(crate) fn state_of_target(&self, target: &Path) -> Option<Name> {
        let rest = target.strip_prefix(self.states()).ok()?;
        let state = rest.parent()?.to_str()?.parse().ok()?;
        (rest.file_name()? == IMAGE).then_some(state)
    }
}

/// The directories in `dir` whose names we give.
pub(crate) fn names(dir: &Path) -> Result<Vec<Name>, StoreError> {
    let entries = durable::entries(dir)?.into_iter();
    let ours = entries.filter(|entry| dir.join(entry).is_dir());
    Ok(ours.filter_map(|entry| entry.parse().ok()).collect())
}
