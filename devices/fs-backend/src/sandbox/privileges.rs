//! What the process gives up.

use caps::CapSet;
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal,
};

use super::{SandboxError, on};

/// Drops every capability, and the ways to get one again.
pub(super) fn drop_all() -> Result<(), SandboxError> {
    // Only who has a capability for it may shrink this one; without it there is nothing to gain
    // from programs either, which cannot be run.
    let bounding = caps::clear(None, CapSet::Bounding);
    tracing::debug!(?bounding, "Bounding set is cleared as far as allowed");
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        // Who has none may not even be allowed to ask: a unit without privileges refuses capset(2).
        let held = caps::read(None, set).map_err(SandboxError::Capabilities)?;
        if !held.is_empty() {
            caps::clear(None, set).map_err(SandboxError::Capabilities)?;
        }
    }
    rustix::thread::set_no_new_privs(true).map_err(on("give up new privileges"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(on("keep its memory to itself"))
}

/// Has the process killed when its parent ends. Dropping capabilities undoes this, so it comes
/// later. A parent that ended before has closed the connection, which ends the service as well.
pub(super) fn die_with_parent() -> Result<(), SandboxError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(on("follow its parent"))
}
