//! `restore`: a new state with the content of a snapshot.

use super::clone::NewState;
use crate::copy::Copied;
use crate::error::StoreError;
use crate::image::Progress;
use crate::layout::{IMAGE, Layout};
use crate::name::{Name, SnapshotRef};
use crate::store::Store;

impl Store {
    /// Makes the state `new` with the content of a snapshot.
    ///
    /// # Errors
    /// When there is no such snapshot or several, the new name is taken, or the host refuses.
    pub fn restore(
        &self,
        snapshot: &SnapshotRef,
        new: &Name,
        progress: Progress<'_>,
    ) -> Result<Copied, StoreError> {
        let copy = {
            let locked = self.lock()?;
            let (state, snapshot) = resolve(locked.layout(), snapshot)?;
            let dir = locked.layout().snapshot(&state, &snapshot);
            NewState::begin(&locked, new, dir.join(IMAGE))?
        };
        copy.fill(self, progress)
    }
}

/// The one snapshot that is meant.
pub(crate) fn resolve(
    layout: &Layout,
    reference: &SnapshotRef,
) -> Result<(Name, Name), StoreError> {
    let snapshot = &reference.snapshot;
    let mut having = match &reference.state {
        Some(state) => vec![state.clone()],
        None => layout.all_states()?,
    };
    having.retain(|state| layout.snapshot(state, snapshot).is_dir());
    match having.as_slice() {
        [state] => Ok((state.clone(), snapshot.clone())),
        [] => Err(StoreError::NoSnapshot {
            snapshot: reference.to_string(),
        }),
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
