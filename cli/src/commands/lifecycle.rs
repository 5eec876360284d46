//! `pause` and `resume`.

use hostnet::slot::SlotName;
use serde::Serialize;
use vmm::lifecycle::VmState;

use super::{CommandError, Context};
use crate::args::SlotArg;
use crate::client::Ask;
use crate::exit::Exit;
use crate::output::{Format, print_json};

/// Halts the processors of a running slot.
pub(super) fn pause(args: &SlotArg, context: &Context) -> Result<Exit, CommandError> {
    change(args, context, (Ask::Pause, VmState::Paused))
}

/// Lets a paused slot go on.
pub(super) fn resume(args: &SlotArg, context: &Context) -> Result<Exit, CommandError> {
    change(args, context, (Ask::Resume, VmState::Running))
}

fn change(
    args: &SlotArg,
    context: &Context,
    (ask, state): (Ask, VmState),
) -> Result<Exit, CommandError> {
    let client = context.client(&args.slot)?;
    client.tell(ask)?;
    Changed {
        slot: client.slot(),
        state,
    }
    .print(context)?;
    Ok(Exit::Success)
}

/// What became of a slot. People asked for it and see a prompt; only programs are told.
#[derive(Serialize)]
pub(super) struct Changed<'a> {
    /// The slot.
    pub(super) slot: &'a SlotName,
    /// Its state now.
    pub(super) state: VmState,
}

impl Changed<'_> {
    /// Prints it when JSON was asked for.
    pub(super) fn print(&self, context: &Context) -> Result<(), CommandError> {
        match context.format {
            Format::Text => Ok(()),
            Format::Json => print_json(self).map_err(CommandError::on("print the result")),
        }
    }
}
