//! Arguments of `fs-backend`.

use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fs_backend::vhost::Poll;

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
    /// How long to look for the next request of a guest that asks at once again: `auto`, `off`, or
    /// microseconds up to 10000
    #[arg(long, value_name = "TIME", default_value = "auto", value_parser = poll)]
    pub(crate) poll: Poll,
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

/// Longest time to look for a request, in microseconds.
const MAX_POLL: u64 = 10_000;

fn poll(text: &str) -> Result<Poll, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Poll::Auto),
        ("off", _) => Ok(Poll::For(Duration::ZERO)),
        (_, Ok(micros @ 0..=MAX_POLL)) => Ok(Poll::For(Duration::from_micros(micros))),
        _ => Err("expected `auto`, `off`, or microseconds from 0 to 10000".to_owned()),
    }
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
