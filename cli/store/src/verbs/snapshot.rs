//! `snapshot` of a state that no slot runs. A running slot's is filled by its process, with
//! [`begin`](crate::snapshot::begin).

use crate::assignments::Assignments;
use crate::error::StoreError;
use crate::image::{self, Progress};
use crate::name::Name;
use crate::snapshot::{Consistency, Facts, Manifest, begin_locked};
use crate::store::Store;

impl Store {
    /// Takes a snapshot of a state that nobody writes. No slot can start with the state meanwhile.
    ///
    /// # Errors
    /// When the state is in use, the name is taken or the host refuses.
    pub fn snapshot(
        &self,
        state: &Name,
        snapshot: &Name,
        progress: Progress<'_>,
    ) -> Result<Manifest, StoreError> {
        let (pending, source, slot) = {
            let locked = self.lock()?;
            locked.require_state(state)?;
            let source = image::open_shared(&locked.layout().image(state))?;
            let slot = Assignments::read(locked.layout())?.owner_of(locked.layout(), state)?;
            (begin_locked(&locked, state, snapshot)?, source, slot)
        };
        let mut facts = Facts {
            consistency: Consistency::Stopped,
            slot: slot.map(String::from),
            pause_us: None,
            copied_bytes: 0,
        };
        let Some(source) = source else {
            return pending.commit_without_image(facts);
        };
        let to = (&source, pending.image_file(), pending.image_path());
        facts.copied_bytes = image::copy(to, self.method(), progress)?.copied_bytes();
        pending.commit(facts)
    }
}
