//! `reads`: what a direct read of a disk costs, beside other monitors.

use std::fs;
use std::path::absolute;
use std::time::Duration;

use anyhow::{Context, Result};

use super::workspace;
use crate::args::ReadsCommand;
use crate::cache::Cache;
use crate::guest::Images;
use crate::host::{Host, Job, Limits};
use crate::inside::Reads;
use crate::progress::heading;
use crate::tools::Tools;
use crate::{record, report};

/// Has every monitor's guest read in turns, and prints medians and ratios.
///
/// # Errors
/// When something cannot be built, slotvmm's guest does not read, or the lab fails.
pub fn reads(args: &ReadsCommand) -> Result<u8> {
    let program = workspace::build_release()?;
    let cache = Cache::open()?;
    let tools = Tools::ensure(&cache)?;
    let images = Images::ensure(&cache, &tools)?;
    let host = Host::open(&cache, &tools)?;
    heading(&format!(
        "Reads, {}, instructions counted where it is emulated: {}",
        host.choice().mode,
        host.choice().reason
    ));
    let lab = std::env::current_exe().context("Cannot tell where the lab's program is")?;
    let mut job = Job::new([lab.into_os_string()])?;
    let paths = [
        ("--program", program),
        (
            "--kernel",
            images.dir().join("kernels").join(args.kernel.name()),
        ),
        // The packages' root lies beside the wrappers of their programs.
        ("--tools", tools.bin().with_file_name("root")),
    ];
    job.command.extend(["inside", "reads"].map(Into::into));
    for (option, path) in paths {
        job.command.extend([option.into(), path.into()]);
    }
    job.command
        .extend(["--runs".into(), args.runs.to_string().into()]);
    for peer in &args.peers {
        let named = format!("{}={}", peer.name, absolute(&peer.path)?.display());
        job.command.extend(["--peer".into(), named.into()]);
    }
    job.count_instructions();
    job.limits = Limits {
        cpus: 1,
        memory_mib: 2048,
        timeout: Duration::from_secs(1800),
    };
    let transcript = tempfile::NamedTempFile::new()?;
    job.transcript = Some(transcript.path().to_owned());
    let status = host.run(&job)?;
    let reads: Vec<Reads> = fs::read_to_string(transcript.path())?
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    if status == 0 {
        print!("{}", report::reads(&reads)?);
        record::keep("reads", "cargo lab reads", &reads)?;
    }
    Ok(status)
}
