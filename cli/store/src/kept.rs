//! Where a snapshot is: a directory of files, or a snapshot of a data set.

use std::path::PathBuf;

use crate::durable;
use crate::error::StoreError;
use crate::layout::{IMAGE, Layout};
use crate::name::{Name, SnapshotRef};
use crate::snapshot::Manifest;
use crate::store::Store;
use crate::zfs::SetSnapshot;
use crate::zfs::recover::snapshot_dir;

/// A snapshot, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// `snapshots/<name>/` in its state.
    Files(PathBuf),
    /// A snapshot of the state's data set.
    DataSet(Box<SetSnapshot>),
}

impl Kept {
    /// Where its image can be read, if it has one.
    pub(crate) fn image(&self, layout: &Layout) -> PathBuf {
        match self {
            Self::Files(dir) => dir.join(IMAGE),
            Self::DataSet(it) => snapshot_dir(&layout.state(&it.state), &it.name).join(IMAGE),
        }
    }

    /// The same, for whoever reads it.
    ///
    /// # Errors
    /// When it has one that cannot be seen: that is not taken for a snapshot without an image.
    pub(crate) fn seen_image(&self, layout: &Layout) -> Result<PathBuf, StoreError> {
        let path = self.image(layout);
        let has_one = match self {
            Self::Files(_) => false,
            Self::DataSet(it) => it.manifest.as_ref().is_some_and(|it| it.bytes.is_some()),
        };
        if has_one && !path.exists() {
            return Err(StoreError::Unseen { path });
        }
        Ok(path)
    }

    /// What it says of itself.
    pub(crate) fn manifest(&self, layout: &Layout) -> Result<Manifest, StoreError> {
        match self {
            Self::Files(dir) => Manifest::read(dir),
            Self::DataSet(it) => it.manifest.clone().ok_or_else(|| StoreError::NoManifest {
                path: snapshot_dir(&layout.state(&it.state), &it.name),
            }),
        }
    }
}

impl Store {
    /// A snapshot of a state, if there is one of that name.
    pub(crate) fn kept(&self, state: &Name, snapshot: &Name) -> Result<Option<Kept>, StoreError> {
        let dir = self.layout().snapshot(state, snapshot);
        if dir.is_dir() {
            return Ok(Some(Kept::Files(dir)));
        }
        let Some(sets) = self.data_sets() else {
            return Ok(None);
        };
        let found = sets.snapshot_of(state, snapshot)?;
        Ok(found.map(|it| Kept::DataSet(Box::new(it))))
    }

    /// The names of a state's snapshots.
    fn snapshot_names(&self, state: &Name) -> Result<Vec<Name>, StoreError> {
        let mut found = crate::layout::names(&self.layout().snapshots(state))?;
        if let Some(sets) = self.data_sets() {
            found.extend(sets.snapshots_of(state)?.into_iter().map(|(name, _)| name));
        }
        Ok(found)
    }

    /// The one snapshot that is meant.
    pub(crate) fn resolve(&self, reference: &SnapshotRef) -> Result<(Name, Kept), StoreError> {
        let snapshot = &reference.snapshot;
        let candidates = match &reference.state {
            Some(state) => vec![state.clone()],
            None => self.layout().all_states()?,
        };
        let mut having = Vec::new();
        for state in candidates {
            if self.snapshot_names(&state)?.contains(snapshot) {
                having.push(state);
            }
        }
        let missing = || StoreError::NoSnapshot {
            snapshot: reference.to_string(),
        };
        match having.as_slice() {
            [state] => {
                let kept = self.kept(state, snapshot)?.ok_or_else(missing)?;
                Ok((state.clone(), kept))
            }
            [] => Err(missing()),
            several => {
                let choices: Vec<_> = several
                    .iter()
                    .map(|state| format!("{state}@{snapshot}"))
                    .collect();
                Err(StoreError::Ambiguous {
                    snapshot: snapshot.clone(),
                    choices: choices.join(", "),
                })
            }
        }
    }
}

/// Removes the snapshots that were kept as files in what was made of a data set's snapshot.
pub(crate) fn clear_files(set: &std::path::Path) -> Result<(), StoreError> {
    durable::remove_tree(&set.join("snapshots"))
}
