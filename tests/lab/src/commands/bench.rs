//! `bench`: `slotvmm bench boot` on stock kernels, in the lab.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context, Result};

use super::place::{Clock, Place};
use super::workspace;
use crate::args::{BenchCommand, BenchGuest};
use crate::emulator::Emulator;
use crate::host::{Job, Limits};
use crate::record;

/// Time for all boots.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Boots a slot and its peers in turns, prints the table, and fetches the report when it is asked for.
///
/// # Errors
/// When something cannot be built or the lab fails.
pub fn bench(args: &BenchCommand) -> Result<u8> {
    let program = match &args.program {
        Some(program) => absolute(program)?,
        None => workspace::build_release()?,
    };
    let place = Place::open("Boots", Clock::of(args.icount))?;
    let mut job = job(args, program, &place)?;
    let results = tempfile::tempdir()?;
    job.results = Some(results.path().to_owned());
    // In real time as well: with five machines at once the packaged one has stood still.
    job.emulator = Emulator::Mended;
    job.limits = Limits {
        cpus: args.cpus,
        memory_mib: 3072,
        timeout: TIMEOUT,
    };
    let status = place.run(&job)?;
    if status == 0 {
        keep(args, results.path())?;
    }
    if let Some(to) = &args.to {
        copy(results.path(), to)?;
    }
    Ok(status)
}

/// How long a boot may take: many times what it does. With counted instructions a second that a hanging
/// guest is given takes several here.
fn patience(args: &BenchCommand) -> Duration {
    let one = match (args.guest, args.icount) {
        (BenchGuest::Mini, true) => 10,
        (BenchGuest::Mini, false) => 120,
        (BenchGuest::Systemd, true) => 60,
        (BenchGuest::Systemd, false) => 900,
    };
    Duration::from_secs(one) * args.together.unwrap_or(1)
}

/// Keeps the results for the document.
fn keep(args: &BenchCommand, results: &Path) -> Result<()> {
    let path = results.join("report.json");
    let text = fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?;
    let values: serde_json::Value = serde_json::from_slice(&text)?;
    let (name, mut command) = match (args.together, args.guest) {
        (Some(machines), _) => (
            "together",
            format!("cargo lab bench --together {machines} --cpus {}", args.cpus),
        ),
        (None, BenchGuest::Mini) => ("bench-mini", "cargo lab bench".to_owned()),
        (None, BenchGuest::Systemd) => {
            let command = "cargo lab bench --guest systemd";
            ("bench-systemd", command.to_owned())
        }
    };
    if args.icount {
        command.push_str(" --icount");
    }
    command.push_str(&format!(" -n {}", args.boots));
    record::keep(name, &command, &values)
}

/// Copies every file of `from` to the directory `to`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("Cannot create {}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        fs::copy(entry.path(), &to).with_context(|| format!("Cannot write {}", to.display()))?;
    }
    Ok(())
}

/// The part inside the lab.
fn job(args: &BenchCommand, program: PathBuf, place: &Place) -> Result<Job> {
    let guest = match args.guest {
        BenchGuest::Mini => ("--kernel", place.kernel(args.kernel)),
        BenchGuest::Systemd => ("--bootstrap", place.image("demo/trixie.squashfs")),
    };
    let paths = [("--program", program), ("--tools", place.tools()), guest];
    let mut command: Vec<OsString> = Vec::new();
    command.extend(["--boots".into(), args.boots.to_string().into()]);
    let patience = patience(args).as_secs().to_string();
    command.extend(["--patience".into(), patience.into()]);
    for peer in &args.peers {
        let named = format!("{}={}", peer.name, absolute(&peer.path)?.display());
        command.extend(["--peer".into(), named.into()]);
    }
    for table in &args.set {
        command.extend(["--set".into(), toml::to_string(table)?.into()]);
    }
    if let Some(machines) = args.together {
        command.extend(["--together".into(), machines.to_string().into()]);
    }
    if let Some(until) = &args.until {
        command.extend(["--until".into(), until.into()]);
    }
    place.job("bench", paths, command)
}
