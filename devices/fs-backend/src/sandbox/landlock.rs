//! Landlock: reading below the share, and nothing else.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::SandboxError;

/// Newest rules that are asked for; older kernels enforce what they know.
const NEWEST: ABI = ABI::V6;

/// Whether the kernel enforces anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enforced {
    /// It does.
    Yes,
    /// It has no Landlock.
    No,
}

/// Allows reading below `root`. The process can open nothing for writing, run nothing, use no TCP,
/// and signal nobody outside.
pub(super) fn restrict(root: BorrowedFd<'_>) -> Result<Enforced, SandboxError> {
    let status = rules(root).map_err(SandboxError::Landlock)?;
    tracing::debug!(?status, "Landlock");
    Ok(match status {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Enforced::Yes,
        RulesetStatus::NotEnforced => Enforced::No,
    })
}

fn rules(root: BorrowedFd<'_>) -> Result<RulesetStatus, RulesetError> {
    let reading: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(PathBeneath::new(root, reading))?
        .restrict_self()?;
    Ok(status.ruleset)
}
