//! `start`, `restart` and `logs`: thin covers over systemd and its journal.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use hostnet::slot::SlotName;
use vmm::api::VmInfo;
use vmm::lifecycle::VmState;

use super::lifecycle::Changed;
use super::{CommandError, Context, name};
use crate::args::{Logs, SlotArg};
use crate::client::Ask;
use crate::exit::Exit;
use crate::systemd::{Job, Unit, UnitError};

/// Starts a slot's unit.
pub(super) fn start(args: &SlotArg, context: &Context) -> Result<Exit, CommandError> {
    change(args, context, Job::Start)
}

/// Restarts a slot's unit.
pub(super) fn restart(args: &SlotArg, context: &Context) -> Result<Exit, CommandError> {
    change(args, context, Job::Restart)
}

fn change(args: &SlotArg, context: &Context, job: Job) -> Result<Exit, CommandError> {
    let slot = name(&args.slot)?;
    let unit = unit(&slot)?;
    let facts = unit.facts()?;
    // A slot that someone runs by hand would make the unit fail with a locked disk.
    if let Ok(VmInfo { pid, .. }) = context.client(&args.slot)?.ask(Ask::Info)
        && !facts.owns(pid)
    {
        return Err(UnitError::Foreign { slot, pid }.into());
    }
    unit.run(job)?;
    Changed {
        slot: &slot,
        state: VmState::Running,
    }
    .print(context)?;
    Ok(Exit::Success)
}

/// Shows what a slot and its guest's console said. This process becomes `journalctl`.
pub(super) fn logs(args: &Logs) -> Result<Exit, CommandError> {
    let slot = name(&args.slot)?;
    let unit = unit(&slot)?;
    let program = "journalctl";
    let mut journal = Command::new(program);
    journal.arg("--unit").arg(unit.name());
    if args.follow {
        journal.arg("--follow");
    }
    if let Some(lines) = args.lines {
        journal.arg("--lines").arg(lines.to_string());
    }
    let source = journal.exec();
    Err(UnitError::Program { program, source }.into())
}

fn unit(slot: &SlotName) -> Result<Unit<'_>, UnitError> {
    Unit::of(slot).ok_or_else(|| UnitError::NoSystemd { slot: slot.clone() })
}
