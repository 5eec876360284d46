//! Where everything lies. Pure.

use std::path::{Path, PathBuf};

use crate::name::Name;

/// Begins the name of something that is being made.
pub(crate) const NEW: &str = ".new-";
/// Begins the name of something that is being removed.
pub(crate) const OLD: &str = ".old-";
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
