//! `assign`: which state a slot boots with from its next start on.

use std::fs;
use std::path::PathBuf;

use crate::assignments::{Assignments, Change, free_backup};
use crate::error::StoreError;
use crate::image;
use crate::name::Name;
use crate::store::{Locked, Store};

/// What to do when another slot has the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Say so and change nothing.
    Refuse,
    /// Take it away from that slot, which then has none.
    Move,
}

/// What an assignment changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The state that the slot had.
    pub previous: Option<Name>,
    /// The slot that had the state.
    pub taken_from: Option<Name>,
    /// Whether the state was made for this.
    pub created: bool,
    /// Where the image went that the slot had of its own.
    pub backup: Option<PathBuf>,
}

impl Store {
    /// Assigns `state` to `slot`. A state that does not exist is made.
    ///
    /// # Errors
    /// When another slot has the state or somebody uses it, or the host refuses.
    pub fn assign(
        &self,
        slot: &Name,
        state: &Name,
        conflict: Conflict,
    ) -> Result<Assigned, StoreError> {
        assign(&self.lock()?, slot, state, conflict)
    }

    /// Takes the state of `slot` away, if it has one; what it boots with next is made new.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn unassign(&self, slot: &Name) -> Result<(), StoreError> {
        Change::default().set(slot, None).make(&self.lock()?)
    }
}

fn assign(
    locked: &Locked<'_>,
    slot: &Name,
    state: &Name,
    conflict: Conflict,
) -> Result<Assigned, StoreError> {
    let layout = locked.layout();
    let assignments = Assignments::read(layout)?;
    let owner = assignments.owner_of(layout, state)?;
    let taken_from = owner.clone().filter(|owner| owner != slot);
    let mut change = Change::default().set(slot, Some(state));
    if let Some(other) = &taken_from {
        if conflict == Conflict::Refuse {
            return Err(StoreError::Assigned {
                state: state.clone(),
                slot: other.clone(),
            });
        }
        change = change.set(other, None);
    }
    // A slot may run with the state that it has; nobody else may.
    let _claimed = if owner.as_ref() == Some(slot) {
        None
    } else {
        image::claim(&layout.image(state))?
    };
    let link = layout.link(slot);
    let has_own = fs::symlink_metadata(&link).is_ok_and(|link| !link.is_symlink());
    let assigned = Assigned {
        previous: assignments.state_of(layout, slot),
        taken_from,
        created: !layout.state(state).is_dir(),
        backup: has_own.then(|| free_backup(&link)),
    };
    change.make(locked)?;
    Ok(assigned)
}
