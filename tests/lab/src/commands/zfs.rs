//! `zfs`: the tests that need a real OpenZFS.

use anyhow::Result;

use super::check::conclude;
use crate::args::ZfsCommand;
use crate::check::{Check, Transcript};

/// Runs them and prints the tally as the last line.
///
/// # Errors
/// When OpenZFS cannot be built, or a test program not be run.
pub fn zfs(args: &ZfsCommand) -> Result<u8> {
    let transcript = if args.record {
        Transcript::Keep
    } else {
        Transcript::Compare
    };
    let mut check = Check::new(Vec::new())?;
    check.zfs(transcript)?;
    Ok(conclude(check.tally()))
}
