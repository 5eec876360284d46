//! `pause` and `resume`.

use super::{CommandError, Context};
use crate::args::SlotArg;
use crate::client::Ask;
use crate::exit::Exit;

/// Halts the processors of a running slot.
pub(super) fn pause(args: &SlotArg, context: &Context) -> Result<Exit, CommandError> {
    context.client(&args.slot)?.tell(Ask::Pause)?;
    Ok(Exit::Success)
}

/// Lets a paused slot go on.
pub(super) fn resume(args: &SlotArg, context: &Context) -> Result<Exit, CommandError> {
    context.client(&args.slot)?.tell(Ask::Resume)?;
    Ok(Exit::Success)
}
