//! `migrate`: a state moves to another slot, which starts with it; when that fails, all is as
//! before.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::assign::{Assigned, Conflict};
use crate::assignments::Assignments;
use crate::durable;
use crate::error::StoreError;
use crate::name::Name;
use crate::store::Store;

/// Why a slot did not do what was asked.
pub type ControlError = Box<dyn Error>;

/// Starts and stops slots. The store itself cannot.
pub trait SlotControl {
    /// Whether the slot runs.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn is_running(&self, slot: &Name) -> Result<bool, ControlError>;

    /// Stops a running slot and returns when it has ended.
    ///
    /// # Errors
    /// When it does not stop.
    fn stop(&self, slot: &Name) -> Result<(), ControlError>;

    /// Starts a slot and returns when it is up. False if nothing on this host starts slots.
    ///
    /// # Errors
    /// When it does not come up.
    fn start(&self, slot: &Name) -> Result<bool, ControlError>;
}

/// Why a state was not moved. Everything is as before, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A slot could not be asked or stopped.
    #[error("Failed to {action} {slot}: state '{state}' stays where it was")]
    Slot {
        /// What was tried.
        action: &'static str,
        /// The slot.
        slot: Name,
        /// The state.
        state: Name,
        /// Why.
        #[source]
        source: ControlError,
    },
    /// The slot did not come up with the state.
    #[error("Failed to start {slot} with state '{state}', so it was moved back: {home}")]
    MovedBack {
        /// The slot.
        slot: Name,
        /// The state.
        state: Name,
        /// Where the state is now.
        home: Box<Home>,
        /// Why.
        #[source]
        source: ControlError,
    },
    /// The slot did not come up, and the way back failed as well.
    #[error(
        "Failed to start {slot} with state '{state}' ({start}), and to move it back: see \
         `slotvmm state list`"
    )]
    Stuck {
        /// The slot.
        slot: Name,
        /// The state.
        state: Name,
        /// Why it did not start.
        start: ControlError,
        /// Why it could not be moved back.
        #[source]
        source: ControlError,
    },
}

/// Where a state is that was moved back, and what became of the slots that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The slot that has it, if one does.
    pub slot: Option<Name>,
    /// Slots that run again.
    pub running: Vec<Name>,
    /// Slots that ran before and did not start again.
    pub stopped: Vec<Name>,
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.slot {
            Some(slot) => write!(f, "{slot} has it")?,
            None => f.write_str("no slot has it, as before")?,
        }
        for slot in &self.running {
            write!(f, "; {slot} runs again")?;
        }
        for slot in &self.stopped {
            write!(
                f,
                "; {slot} did not start again, `slotvmm logs {slot}` says more"
            )?;
        }
        Ok(())
    }
}

/// What a migration changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// What the assignment changed.
    pub assigned: Assigned,
    /// Slots that ran and were stopped for it.
    pub stopped: Vec<Name>,
    /// Whether the slot was started.
    pub started: bool,
}

impl Store {
    /// Moves `state` to `slot`: stops the slot and the one that has the state, assigns, starts the
    /// slot.
    ///
    /// # Errors
    /// When a slot does not stop or start, or the store refuses; see [`MigrateError`].
    pub fn migrate(
        &self,
        state: &Name,
        slot: &Name,
        control: &dyn SlotControl,
    ) -> Result<Migrated, MigrateError> {
        let layout = self.layout();
        let from = Assignments::read(layout)?.owner_of(layout, state)?;
        if !layout.state(state).is_dir() {
            let state = state.clone();
            return Err(StoreError::NoState { state }.into());
        }
        let mut concerned = vec![slot.clone()];
        concerned.extend(from.filter(|from| from != slot));
        let mut migration = Migration {
            store: self,
            state,
            slot,
            control,
            stopped: Vec::new(),
        };
        migration.stop(&concerned)?;
        let assigned = match self.assign(slot, state, Conflict::Move) {
            Ok(assigned) => assigned,
            Err(error) => {
                migration.start_again();
                return Err(error.into());
            }
        };
        match control.start(slot) {
            Ok(started) => Ok(Migrated {
                assigned,
                stopped: migration.stopped,
                started,
            }),
            Err(source) => Err(migration.go_back(&assigned, source)),
        }
    }
}

struct Migration<'a> {
    store: &'a Store,
    state: &'a Name,
    slot: &'a Name,
    control: &'a dyn SlotControl,
    stopped: Vec<Name>,
}

impl Migration<'_> {
    fn stop(&mut self, slots: &[Name]) -> Result<(), MigrateError> {
        let state = self.state;
        for slot in slots {
            let failed = |action| {
                move |source| MigrateError::Slot {
                    action,
                    slot: slot.clone(),
                    state: state.clone(),
                    source,
                }
            };
            let stopped = match self.control.is_running(slot) {
                Ok(false) => continue,
                Ok(true) => self.control.stop(slot).map_err(failed("stop")),
                Err(source) => Err(failed("ask")(source)),
            };
            if let Err(error) = stopped {
                self.start_again();
                return Err(error);
            }
            self.stopped.push(slot.clone());
        }
        Ok(())
    }

    /// Starts what was stopped; returns which of it runs, and which does not. Why not is for the slot's
    /// log to explain: the error at hand came first.
    fn start_again(&self) -> (Vec<Name>, Vec<Name>) {
        let slots = self.stopped.iter().cloned();
        slots.partition(|slot| self.control.start(slot).is_ok_and(|started| started))
    }

    fn go_back(&self, assigned: &Assigned, start: ControlError) -> MigrateError {
        let (slot, state) = (self.slot.clone(), self.state.clone());
        match self.undo(assigned) {
            Ok(()) => {
                let (running, stopped) = self.start_again();
                let now = Assignments::read(self.store.layout());
                let owner = now.and_then(|now| now.owner_of(self.store.layout(), self.state));
                let home = Box::new(Home {
                    // It was moved there just now.
                    slot: owner.unwrap_or_else(|_| assigned.taken_from.clone()),
                    running,
                    stopped,
                });
                MigrateError::MovedBack {
                    slot,
                    state,
                    home,
                    source: start,
                }
            }
            Err(source) => MigrateError::Stuck {
                slot,
                state,
                start,
                source,
            },
        }
    }

    fn undo(&self, assigned: &Assigned) -> Result<(), ControlError> {
        // A slot whose start failed may still be on its way down, or try again.
        if self.control.is_running(self.slot)? {
            self.control.stop(self.slot)?;
        }
        match (&assigned.taken_from, &assigned.previous) {
            (Some(from), _) => {
                self.store.assign(from, self.state, Conflict::Move)?;
            }
            (None, Some(previous)) if previous == self.state => return Ok(()),
            (None, _) => self.store.unassign(self.slot)?,
        }
        if let Some(previous) = &assigned.previous {
            self.store.assign(self.slot, previous, Conflict::Refuse)?;
        }
        if let Some(backup) = &assigned.backup {
            let image: PathBuf = self.store.layout().link(self.slot);
            durable::rename_new(backup, &image)?;
        }
        Ok(())
    }
}
