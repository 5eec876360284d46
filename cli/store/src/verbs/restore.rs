//! `restore`: a new state with the content of a snapshot.

use super::clone::{NewState, clone_snapshot};
use crate::copy::Copied;
use crate::error::StoreError;
use crate::image::Progress;
use crate::kept::Kept;
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
            let (_, kept) = self.resolve(snapshot)?;
            if let (Kept::DataSet(it), Some(sets)) = (&kept, self.new_in_data_sets()?) {
                return clone_snapshot(&locked, (sets, (&it.state, &it.name)), new);
            }
            NewState::begin(&locked, new, kept.image(locked.layout()))?
        };
        copy.fill(self, progress)
    }
}
