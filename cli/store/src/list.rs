//! What is in a store.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::assignments::Assignments;
use crate::error::StoreError;
use crate::holder::Holder;
use crate::layout::{IMAGE, names};
use crate::lock::{self, Access};
use crate::name::Name;
use crate::snapshot::Manifest;
use crate::store::Store;

/// A slot that has a directory in the store, or a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotInfo {
    /// The slot.
    pub slot: Name,
    /// Its state; nothing if it has an image of its own or none.
    pub state: Option<Name>,
    /// Who uses the image that it boots with.
    pub used_by: Option<String>,
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateInfo {
    /// Its name.
    pub state: Name,
    /// The slot that has it.
    pub slot: Option<Name>,
    /// Length of its image in bytes; nothing before the first boot.
    pub bytes: Option<u64>,
    /// Bytes that its image takes up; shared ones are counted in every file that has them.
    pub allocated_bytes: u64,
    /// Who uses its image.
    pub used_by: Option<String>,
    /// When it was made: seconds since 1970-01-01 UTC.
    pub created: u64,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<SnapshotInfo>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// Its name.
    pub snapshot: Name,
    /// Bytes that its image takes up; shared ones are counted in every file that has them.
    pub allocated_bytes: u64,
    /// When it was taken: seconds since 1970-01-01 UTC.
    pub created: u64,
    /// What it says of itself; nothing if that cannot be read.
    pub manifest: Option<Manifest>,
}

impl Store {
    /// Every slot, sorted by name. Looks without a lock.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn slots(&self) -> Result<Vec<SlotInfo>, StoreError> {
        let layout = self.layout();
        let assignments = Assignments::read(layout)?;
        let mut slots = layout.slots()?;
        slots.extend(assignments.iter().map(|(slot, _)| slot.clone()));
        slots.sort();
        slots.dedup();
        let describe = |slot: Name| SlotInfo {
            state: assignments.state_of(layout, &slot),
            used_by: user(&layout.link(&slot)),
            slot,
        };
        Ok(slots.into_iter().map(describe).collect())
    }

    /// Every state, sorted by name. Looks without a lock.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn states(&self) -> Result<Vec<StateInfo>, StoreError> {
        let layout = self.layout();
        let assignments = Assignments::read(layout)?;
        let mut states = Vec::new();
        for state in layout.all_states()? {
            let image = layout.image(&state);
            states.push(StateInfo {
                slot: assignments.owner_of(layout, &state)?,
                bytes: fs::metadata(&image).ok().map(|image| image.len()),
                allocated_bytes: allocated(&image),
                used_by: user(&image),
                created: created(&layout.state(&state)),
                snapshots: self.snapshots(&state)?,
                state,
            });
        }
        Ok(states)
    }

    /// The snapshots of a state, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn snapshots(&self, state: &Name) -> Result<Vec<SnapshotInfo>, StoreError> {
        let mut snapshots = Vec::new();
        if let Some(sets) = self.data_sets() {
            let its = sets.snapshots_of(state)?.into_iter();
            snapshots.extend(its.map(|(snapshot, it)| SnapshotInfo {
                snapshot,
                allocated_bytes: it.referenced,
                created: it.created,
                manifest: it.manifest,
            }));
        }
        for snapshot in names(&self.layout().snapshots(state))? {
            let dir = self.layout().snapshot(state, &snapshot);
            let manifest = Manifest::read(&dir).ok();
            snapshots.push(SnapshotInfo {
                allocated_bytes: allocated(&dir.join(IMAGE)),
                created: manifest
                    .as_ref()
                    .map_or_else(|| created(&dir), |m| m.created),
                manifest,
                snapshot,
            });
        }
        snapshots.sort_by(|a, b| (a.created, &a.snapshot).cmp(&(b.created, &b.snapshot)));
        Ok(snapshots)
    }
}

fn allocated(image: &Path) -> u64 {
    fs::metadata(image).map_or(0, |image| image.blocks().saturating_mul(512))
}

/// When something was made, as far as the file system knows.
fn created(path: &Path) -> u64 {
    let metadata = fs::metadata(path);
    let time = metadata.and_then(|it| it.created().or_else(|_| it.modified()));
    let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
    let since = time.duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).unwrap_or_default()
}

fn user(image: &Path) -> Option<String> {
    let file = fs::File::open(image).ok()?;
    let busy = lock::is_busy(&file, Access::Exclusive).unwrap_or(false);
    busy.then(|| Holder::find(&file).to_string())
}
