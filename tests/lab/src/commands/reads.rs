//! `reads`: what a direct read of a disk costs, beside other monitors.

use std::path::absolute;
use std::time::Duration;

use anyhow::Result;

use super::place::{Clock, Place};
use super::workspace;
use crate::args::ReadsCommand;
use crate::host::Limits;
use crate::inside::Reads;
use crate::{record, report};

/// Has every monitor's guest read in turns, and prints medians and ratios.
///
/// # Errors
/// When something cannot be built, slotvmm's guest does not read, or the lab fails.
pub fn reads(args: &ReadsCommand) -> Result<u8> {
    let program = workspace::build_release()?;
    let place = Place::open("Reads", Clock::Counted)?;
    let paths = [
        ("--program", program),
        ("--kernel", place.kernel(args.kernel)),
        ("--tools", place.tools()),
    ];
    let mut more = vec!["--runs".to_owned(), args.runs.to_string()];
    for peer in &args.peers {
        let named = format!("{}={}", peer.name, absolute(&peer.path)?.display());
        more.extend(["--peer".to_owned(), named]);
    }
    let mut job = place.job("reads", paths, more)?;
    job.limits = Limits {
        cpus: 1,
        memory_mib: 2048,
        timeout: Duration::from_secs(1800),
    };
    let (status, reads): (_, Vec<Reads>) = place.values(job)?;
    if status == 0 {
        print!("{}", report::reads(&reads)?);
        record::keep("reads", "cargo lab reads", &reads)?;
    }
    Ok(status)
}
