//! How the process confines itself, before it looks at anything a frontend or a guest sends.
//!
//! In layers, each of which would do alone for what it is about:
//!
//! 1. Namespaces ([`namespaces`]): mounts, with the share as the read-only root and nothing else in
//!    sight; processes, network, IPC, host name. Whoever may not make them does so in a user
//!    namespace, where owners other than the user have no number: see [`Owners`].
//! 2. No capability, none to be had again, not to be traced or dumped ([`privileges`]).
//! 3. Landlock ([`landlock`]): reading below the share, nothing else; no TCP.
//! 4. seccomp ([`seccomp`]): the calls that serving takes; any other ends the process.
//!
//! Where the host refuses namespaces, Landlock has to confine in their place, or there is no
//! service. A process that ends takes its connection along, and the other way round: it dies with
//! its parent, and ends when the frontend is gone.

mod landlock;
mod namespaces;
mod privileges;
mod seccomp;

use std::io;
use std::path::Path;

use rustix::io::Errno;

use self::landlock::Enforced;
use self::namespaces::Namespaces;
use crate::share::{Owners, Share, ShareError};

/// How the process confines itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sandbox {
    /// Every layer.
    #[default]
    Namespace,
    /// Every layer but namespaces: owners of files keep their numbers whoever runs this.
    Landlock,
    /// seccomp alone, for hosts that have nothing else.
    None,
}

/// Why the process is not confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A namespace was made, and cannot be furnished.
    #[error("Cannot confine the file system backend: failed to {action}")]
    Namespace {
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The process cannot be split in two.
    #[error("Cannot confine the file system backend: failed to fork")]
    Fork(#[source] io::Error),
    /// Capabilities stay.
    #[error("Cannot confine the file system backend: failed to drop capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
    /// Landlock does not work.
    #[error("Cannot confine the file system backend: failed to set up Landlock")]
    Landlock(#[source] ::landlock::RulesetError),
    /// The kernel has no Landlock, and nothing else confines.
    #[error(
        "Nothing confines the file system backend: this host allows neither namespaces nor \
         Landlock; allow user namespaces, enable Landlock, or accept it with --sandbox none"
    )]
    Unconfined,
    /// seccomp does not work.
    #[error("Cannot confine the file system backend: failed to set up seccomp")]
    Seccomp(#[source] seccompiler::Error),
    /// The share is not there any more.
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// A share as the confined process sees it.
#[derive(Debug)]
pub(crate) struct Confined {
    /// The share: below the process's root, if it has one of its own.
    pub(crate) share: Share,
    /// What its files' owners look like.
    pub(crate) owners: Owners,
}

/// Confines the process to the directory at `source`, for good. There must be no other thread.
pub(crate) fn enter(sandbox: Sandbox, source: &Path) -> Result<Confined, SandboxError> {
    let share = Share::open(source)?;
    let namespaces = match sandbox {
        Sandbox::Namespace => namespaces::unshare(source)?,
        Sandbox::Landlock | Sandbox::None => Namespaces::Refused,
    };
    let (share, owners) = match namespaces {
        Namespaces::Entered { owners } => (Share::open(Path::new("/"))?, owners),
        Namespaces::Refused => (share, Owners::Host),
    };
    privileges::drop_all()?;
    if sandbox != Sandbox::None {
        let enforced = landlock::restrict(share.root())?;
        let refused = matches!(namespaces, Namespaces::Refused);
        if enforced == Enforced::No && refused {
            return Err(SandboxError::Unconfined);
        }
    }
    if let Namespaces::Entered { .. } = namespaces {
        namespaces::become_init()?;
    }
    privileges::die_with_parent()?;
    seccomp::filter()?;
    Ok(Confined { share, owners })
}

/// For `map_err`: names what failed.
fn on(action: &'static str) -> impl Fn(Errno) -> SandboxError {
    move |source| SandboxError::Namespace { action, source }
}
