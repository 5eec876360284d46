//! Starts and stops slots for a migration: through systemd where it runs the host, else through
//! the slots' control sockets.

use hostnet::slot::SlotName;
use store::{ControlError, Name, SlotControl};
use vmm::api::VmInfo;

use super::Context;
use crate::args::Stop;
use crate::client::{Ask, ClientError};
use crate::commands::stop::stop_slot;
use crate::systemd::{Job, Unit, UnitError};

/// The slots of this host.
pub(super) struct Slots<'a> {
    /// Where the sockets are.
    pub(super) context: &'a Context,
}

/// Whether a slot runs, as far as can be told.
pub(super) fn is_running(slot: &Name, context: &Context) -> bool {
    Slots { context }.is_running(slot).unwrap_or(false)
}

impl SlotControl for Slots<'_> {
    fn is_running(&self, slot: &Name) -> Result<bool, ControlError> {
        let name: SlotName = slot.as_str().parse()?;
        let is_up = Unit::of(&name).is_some_and(|unit| unit.facts().is_ok_and(|it| it.is_up()));
        match self.context.client(slot.as_str())?.ask::<VmInfo>(Ask::Info) {
            Ok(_) => Ok(true),
            Err(ClientError::NotRunning { .. }) => Ok(is_up),
            Err(error) => Err(error.into()),
        }
    }

    fn stop(&self, slot: &Name) -> Result<(), ControlError> {
        self.context.info(&format!("Stopping {slot}..."))?;
        let client = self.context.client(slot.as_str())?;
        let args = Stop {
            slot: slot.to_string(),
            timeout: None,
        };
        stop_slot(&args, &client)?;
        Ok(())
    }

    fn start(&self, slot: &Name) -> Result<bool, ControlError> {
        let name: SlotName = slot.as_str().parse()?;
        let Some(unit) = Unit::of(&name) else {
            return Ok(false);
        };
        self.context.info(&format!("Starting {slot}..."))?;
        match unit.run(Job::Start) {
            Ok(()) => Ok(true),
            Err(UnitError::NotInstalled { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
