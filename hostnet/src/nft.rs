//! Runs `nft`, the program that speaks to the kernel's packet filter.
//!
//! A program of its own rather than netlink: its text is what administrators read and write, and
//! one call is one transaction. It inherits `CAP_NET_ADMIN` where we have it by an ambient
//! capability only, so that is arranged first.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{
    CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities,
};

use crate::ruleset::{FAMILIES, TABLE};

/// Where to look beside `PATH`, which for ordinary users often lacks these.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Most of an error of `nft` that is passed on, in bytes; it quotes the whole ruleset otherwise.
const MAX_COMPLAINT: usize = 600;

/// Runs `ruleset` as one transaction: all of it happens, or nothing.
///
/// # Errors
/// When `nft` is absent or refuses.
pub fn apply(ruleset: &str) -> Result<(), NftError> {
    run(&["-f", "-"], Some(ruleset)).map(|_| ())
}

/// Our tables as the kernel has them, without counters; empty when there are none.
///
/// # Errors
/// When `nft` is absent or may not look: this needs `CAP_NET_ADMIN`.
pub fn listing() -> Result<String, NftError> {
    let mut all = String::new();
    for family in FAMILIES {
        match run(&["--stateless", "list", "table", family, TABLE], None) {
            Ok(text) => all.push_str(&text),
            Err(NftError::Refused { complaint }) if complaint.contains("No such file") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Every chain of every table, as JSON.
///
/// # Errors
/// As [`listing`].
pub(crate) fn chains() -> Result<String, NftError> {
    run(&["--json", "list", "chains"], None)
}

fn run(arguments: &[&str], input: Option<&str>) -> Result<String, NftError> {
    let failed = |source| NftError::Run { source };
    pass_on_capability();
    let program = find().ok_or(NftError::Absent)?;
    let input = match input {
        Some(input) => Stdio::from(whole(input).map_err(failed)?),
        None => Stdio::null(),
    };
    let output = Command::new(program)
        .args(arguments)
        // Its complaints are told apart by their text.
        .env("LC_ALL", "C")
        .stdin(input)
        .output()
        .map_err(failed)?;
    answer(&output)
}

/// `text` as a file that has all of it before anybody reads: of a pipe, `nft` would take what it has
/// for everything when we are killed.
fn whole(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("ruleset", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn answer(output: &Output) -> Result<String, NftError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint: String = complaint.trim().chars().take(MAX_COMPLAINT).collect();
    if complaint.contains("Operation not permitted") {
        return Err(NftError::Denied { complaint });
    }
    Err(NftError::Refused { complaint })
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path);
    directories
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join("nft"))
        .find(|program| {
            program
                .metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

/// Lets programs that this thread starts have `CAP_NET_ADMIN` when it has it. Root's programs
/// have it anyway; when it does not work, `nft` says what it lacks.
fn pass_on_capability() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let wanted = CapabilitySet::NET_ADMIN;
    let Ok(mut sets) = capabilities(None) else {
        return;
    };
    if sets.permitted.contains(wanted) {
        sets.inheritable |= wanted;
        let _ = set_capabilities(None, sets)
            .and_then(|()| configure_capability_in_ambient_set(wanted, true));
    }
}

/// Why the packet filter was not changed or read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft`.
    #[error("The program nft is not there: install nftables")]
    Absent,
    /// `nft` could not be run.
    #[error("Failed to run nft")]
    Run {
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// We may not.
    #[error(
        "The packet filter is closed to this user: this needs root or CAP_NET_ADMIN ({complaint})"
    )]
    Denied {
        /// What `nft` said.
        complaint: String,
    },
    /// `nft` or the kernel does not accept it.
    #[error("nft refused: {complaint}")]
    Refused {
        /// What `nft` said.
        complaint: String,
    },
}
