//! `restore`: a new state with the content of a snapshot.

use super::clone::{NewState, clone_snapshot};
use crate::copy::Copied;
use crate::error::StoreError;
use crate::identity::{self, Identity};
use crate::image::Progress;
use crate::kept::Kept;
use crate::name::{Name, SnapshotRef};
use crate::store::Store;

impl Store {
    /// Makes the state `new` with the content of a snapshot. Its guest is the same machine or another
    /// one.
    ///
    /// # Errors
    /// When there is no such snapshot or several, the new name is taken, or the host refuses.
    pub fn restore(
        &self,
        (snapshot, identity): (&SnapshotRef, Identity),
        new: &Name,
        progress: Progress<'_>,
    ) -> Result<Copied, StoreError> {
        let copy = {
            let locked = self.lock()?;
            let (state, kept) = self.resolve(snapshot)?;
            if let (Kept::DataSet(it), Some(sets)) = (&kept, self.new_in_data_sets()?) {
                let source = (sets, (&it.state, it.name.as_str()));
                return clone_snapshot(&locked, source, (new, identity));
            }
            let copy = NewState::begin(&locked, new, kept.seen_image(locked.layout())?)?;
            identity::write(identity, &locked.layout().state(&state), copy.dir())?;
            copy
        };
        copy.fill(self, progress)
    }
}
