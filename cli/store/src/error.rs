//! Why something cannot be done to a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::holder::Holder;
use crate::name::Name;

/// Why a verb failed. The store is as it was before, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store.
    #[error("{} does not exist: create it, or set `state_dir` in host.toml", root.display())]
    NoStore {
        /// The directory.
        root: PathBuf,
    },
    /// Somebody else is making the same thing.
    #[error("{} is being made by {holder}: wait until it is done", path.display())]
    BeingMade {
        /// The directory in which it is being made.
        path: PathBuf,
        /// Who makes it.
        holder: Holder,
    },
    /// There is no such state.
    #[error("State '{state}' does not exist: `slotvmm state list` shows those that do")]
    NoState {
        /// The state.
        state: Name,
    },
    /// A new state would replace an old one.
    #[error("State '{state}' already exists: choose another name, or delete it first")]
    StateExists {
        /// The state.
        state: Name,
    },
    /// The state has no image yet.
    #[error("State '{state}' has no data.img yet: start a slot with it once")]
    NoImage {
        /// The state.
        state: Name,
    },
    /// The slot boots with a state, or with nothing yet.
    #[error("{slot} has no image of its own: {} is no regular file", path.display())]
    NoOwnImage {
        /// The slot.
        slot: Name,
        /// Where the image would be.
        path: PathBuf,
    },
    /// There is no such snapshot.
    #[error("Snapshot '{snapshot}' does not exist: `slotvmm state list` shows those that do")]
    NoSnapshot {
        /// The snapshot, with its state if it was named.
        snapshot: String,
    },
    /// Several states have a snapshot of this name.
    #[error("Snapshot '{snapshot}' exists in several states: choose one of {choices}")]
    Ambiguous {
        /// The snapshot.
        snapshot: Name,
        /// Every `state@snapshot`.
        choices: String,
    },
    /// A new snapshot would replace an old one.
    #[error("Snapshot '{state}@{snapshot}' already exists: choose another name")]
    SnapshotExists {
        /// The state.
        state: Name,
        /// The snapshot.
        snapshot: Name,
    },
    /// The state belongs to a slot.
    #[error("State '{state}' is assigned to {slot}: assign another state to {slot} first")]
    Assigned {
        /// The state.
        state: Name,
        /// The slot.
        slot: Name,
    },
    /// An image is being used.
    #[error("{} is in use by {holder}: stop that first", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
        /// Who uses it.
        holder: Holder,
    },
    /// A file of the store does not say what it should.
    #[error("{} is damaged: expected {expected}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A snapshot was taken by another tool.
    #[error(
        "{} was taken by another tool and says nothing of itself: restore it to a state first",
        path.display()
    )]
    NoManifest {
        /// The snapshot.
        path: PathBuf,
    },
    /// A snapshot of a data set has an image, and there is none where ZFS shows it.
    #[error(
        "{} is not to be seen: ZFS shows snapshots in the mount namespace of the host alone, so run \
         this there",
        path.display()
    )]
    Unseen {
        /// Where the image would be.
        path: PathBuf,
    },
    /// The slot has had its state for a shorter time than it runs.
    #[error("{slot} runs with another image than that of state '{state}': restart it first")]
    OtherImage {
        /// The slot.
        slot: Name,
        /// The state.
        state: Name,
    },
    /// States are to be data sets, and there is none above them.
    #[error(
        "{} is no ZFS data set: make one there with `zfs create -o mountpoint=…`, name it with \
         `zfs.dataset` in host.toml, or set another `snapshot.backend`",
        states.display()
    )]
    NoDataSet {
        /// The directory of states.
        states: PathBuf,
    },
    /// ZFS refused something.
    #[error("`zfs {command}` failed: {said}")]
    Zfs {
        /// What was tried.
        command: String,
        /// What it said.
        said: String,
    },
    /// ZFS needs space for something.
    #[error("`zfs {verb}` needs more space for {name} than its pool or quota has: make room there")]
    PoolFull {
        /// What was tried.
        verb: String,
        /// The data set or snapshot.
        name: String,
    },
    /// The program `zfs` cannot be started.
    #[error("Failed to start `zfs {command}`: install the ZFS utilities")]
    NoZfs {
        /// What was tried.
        command: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The host refused something.
    #[error("Failed to {action} {}{}", path.display(), need(source))]
    Host {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// For `map_err`: names what failed, and where.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// What a user has to do about an error of the host, if that is known.
fn need(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ", whose file system is full: make room there"
        }
        _ => "",
    }
}
