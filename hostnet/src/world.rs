//! Gathers what a plan starts from.

use crate::inspect::{InspectError, inspect};
use crate::journal::{JournalDir, JournalError};
use crate::plan::{World, sysctls};
use crate::policy::{HostSpec, SlotSpec};
use crate::sysctl::{Setting, Sysctl, SysctlError};

/// Looks at everything that concerns `slots`, but for the rules: those need `CAP_NET_ADMIN`, and
/// [`World::listing`] stays empty.
///
/// # Errors
/// When the kernel does not answer, or the journal cannot be read.
pub fn look(
    host: &HostSpec,
    slots: &[SlotSpec],
    journal: &JournalDir,
) -> Result<World, WorldError> {
    let journal = journal.read()?;
    let links = inspect(slots)?;
    let mut wanted = sysctls(host, slots.iter().chain(journal.slots.values()));
    wanted.extend(journal.sysctls.iter().map(|changed| changed.sysctl.clone()));
    wanted.extend(slots.iter().map(|slot| Sysctl {
        interface: slot.bridge.clone(),
        setting: Setting::RouteLocalnet,
    }));
    let mut world = World {
        journal,
        links,
        ..World::default()
    };
    for sysctl in wanted {
        if let Some(on) = sysctl.read()? {
            world.sysctls.insert(sysctl, on);
        }
    }
    Ok(world)
}

/// Why the host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Its links.
    #[error(transparent)]
    Links(#[from] InspectError),
    /// Its settings.
    #[error(transparent)]
    Settings(#[from] SysctlError),
    /// What was done to it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
