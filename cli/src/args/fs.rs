//! Arguments of `fs-backend`.

use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

// Arguments of `fs-backend`.
#[derive(Debug, Args)]
#[command(
    after_help = "Serves one frontend, read-only, and ends when it is gone. `slotvmm run` starts one for each
[[fs]] by itself: docs/fs-backend.md.

Examples:
  slotvmm fs-backend --socket /run/store.sock --source /nix/store
  slotvmm fs-backend --socket /run/src.sock --source ~/src --cache auto"
)]
pub(crate) struct FsBackend {
    /// Make a vhost-user socket here and wait for a frontend
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "fd",
        conflicts_with = "fd"
    )]
    pub(crate) socket: Option<PathBuf>,
    /// Wait at a socket that listens already, by the number of its descriptor
    #[arg(long, value_name = "N")]
    pub(crate) fd: Option<RawFd>,
    /// The directory that is shared
    #[arg(long, value_name = "DIR")]
    pub(crate) source: PathBuf,
    /// What the guest may keep
    #[arg(long, value_enum, default_value_t = Cache::Always)]
    pub(crate) cache: Cache,
    /// Size of the window in which a frontend that can maps files for its guest
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=16_384))]
    pub(crate) dax: Option<u64>,
    /// Request queues, each served by a thread
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) threads: NonZeroUsize,
    /// Look for the next request for so long at most, while the guest asks at once again; 0: never
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub(crate) poll: u64,
    /// How the process confines itself
    #[arg(long, value_enum, default_value_t = Sandbox::Namespace)]
    pub(crate) sandbox: Sandbox,
    /// Keep on standard output, a file, what another backend needs to go on after this one
    #[arg(long)]
    pub(crate) journal: bool,
    /// Show extended attributes of files and directories
    #[arg(long)]
    pub(crate) xattr: bool,
}

/// What a guest may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cache {
    /// Everything: nothing in the share changes, paths only come and go at its top
    Always,
    /// Names and attributes for a second, data until those show a change
    Auto,
    /// Nothing
    Never,
}

/// How the process confines itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// Namespaces of its own with the share as root, Landlock, seccomp
    Namespace,
    /// Landlock and seccomp: owners of files appear as on the host for any user
    Landlock,
    /// Seccomp only
    None,
}
