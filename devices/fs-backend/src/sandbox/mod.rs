//! How the process confines itself.

use crate::share::{Owners, Share};

/// How the process confines itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sandbox {
    /// Not at all.
    #[default]
    None,
}

/// Why the process is not confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {}

/// A share as the confined process sees it.
#[derive(Debug)]
pub(crate) struct Confined {
    pub(crate) share: Share,
    pub(crate) owners: Owners,
}

/// Confines the process.
pub(crate) fn enter(sandbox: Sandbox, share: Share) -> Result<Confined, SandboxError> {
    match sandbox {
        Sandbox::None => Ok(Confined {
            share,
            owners: Owners::Host,
        }),
    }
}
