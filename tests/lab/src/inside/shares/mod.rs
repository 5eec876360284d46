//! The measurement of shared directories inside the lab: a guest reads the same directory through
//! every backend in turn, and times it with its own clock.
//!
//! Everything lies in memory: what is compared is what a backend and its monitor make of a request,
//! not the machine's disk.

mod contender;
mod footprint;
mod tree;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

pub use self::contender::{Contender, With};
use self::contender::{Place, Running};
use self::footprint::Footprint;
use crate::sys;

/// Whether memory that processes share has huge pages.
const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// What is measured.
#[derive(Debug, Args)]
pub struct SharesArgs {
    /// The slotvmm program.
    #[arg(long)]
    pub program: PathBuf,
    /// The program that guests run.
    #[arg(long)]
    pub probe: PathBuf,
    /// Directory of the kernel: vmlinux, bzImage and initrd.
    #[arg(long)]
    pub kernel: PathBuf,
    /// Rounds; every contender has a guest in each.
    #[arg(long)]
    pub runs: u32,
    /// Files in the tree.
    #[arg(long)]
    pub files: usize,
    /// Size of the large file, in MiB.
    #[arg(long)]
    pub large: usize,
    /// What the host's `transparent_hugepage/shmem_enabled` is set to.
    #[arg(long)]
    pub shmem: String,
    /// Size of a window, in MiB, for another guest of slotvmm's.
    #[arg(long)]
    pub dax: Option<u64>,
    /// Lines for the share of another guest of slotvmm's, as NAME=LINES.
    #[arg(long = "with")]
    pub with: Vec<With>,
    /// Another build of slotvmm, as NAME=PATH.
    #[arg(long = "beside")]
    pub beside: Vec<Contender>,
    /// Options for another virtiofsd, as NAME=OPTIONS.
    #[arg(long = "virtiofsd")]
    pub virtiofsd: Vec<With>,
}

/// One value, printed as a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Whose.
    pub contender: String,
    /// Of what, with its unit.
    pub measure: String,
    /// How much.
    pub value: f64,
}

/// Boots a guest with every contender `runs` times, in turns, and prints its [`Reading`]s.
///
/// # Errors
/// When something is missing or a guest fails.
pub fn shares(args: &SharesArgs) -> Result<u8> {
    let dir = tempfile::tempdir_in("/run").context("Cannot create a directory in memory")?;
    let shared = dir.path().join("shared");
    tree::plant(&shared, args.files, args.large)?;
    tree::add_programs(&shared, &args.probe)?;
    let place = Place::prepare(dir.path(), &shared, &args.kernel)?;
    tree::read(&shared)?;
    choose_pages(&args.shmem)?;
    let mut contenders = Contender::all(
        &args.program,
        args.dax,
        &args.with,
        &args.beside,
        &args.virtiofsd,
    );
    for round in 1..=args.runs {
        for contender in &contenders {
            eprintln!("{round}/{}: {}", args.runs, contender.name());
            for reading in run(contender, &place)? {
                println!("{}", serde_json::to_string(&reading)?);
            }
        }
        // Whoever comes after another finds the host otherwise: another one begins the next round.
        contenders.rotate_left(1);
    }
    Ok(0)
}

/// Has an emulated host give huge pages to whom `word` says. This machine keeps its setting.
fn choose_pages(word: &str) -> Result<()> {
    if std::env::var_os("LAB_MODE").is_none_or(|mode| mode != "emulated") {
        eprintln!("{SHMEM_ENABLED} stays as it is: this machine is not emulated");
        return Ok(());
    }
    fs::write(SHMEM_ENABLED, word)
        .with_context(|| format!("Cannot write {word} to {SHMEM_ENABLED}"))
}

/// Runs one guest to its end.
fn run(contender: &Contender, place: &Place) -> Result<Vec<Reading>> {
    let errors = place.dir.join("errors");
    let Running {
        mut monitor,
        mut backend,
    } = contender.prepare(place)?;
    monitor
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors)?);
    let mut child = sys::die_with_parent(&mut monitor)
        .spawn()
        .with_context(|| format!("Cannot start the monitor of {}", contender.name()))?;
    let output = child.stdout.take().context("The output is lost")?;
    let serving = backend.as_ref().map_or(child.id(), |backend| backend.id());
    let reading = |measure: &str, value| Reading {
        contender: contender.name().to_owned(),
        measure: measure.to_owned(),
        value,
    };
    let mut readings = Vec::new();
    let mut footprint = Footprint::default();
    let mut said = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        let mut words = line.split_whitespace();
        if words.next() == Some("PROBE") {
            let (name, time) = (words.next(), words.next());
            let (name, time) = name.zip(time).context("The guest's clock is lost")?;
            let ms = time.parse::<f64>()? / 1e6;
            let measure = format!("{}, ms", name.replace('_', " "));
            eprintln!("{}: {measure}: {ms:.1}", contender.name());
            readings.push(reading(&measure, ms));
            // The backend is idle or at the next thing: what it keeps, it has by now.
            footprint = footprint.max(Footprint::of_children(serving, contender.is_external())?);
        }
        said.push_str(&line);
        said.push('\n');
    }
    child.wait()?;
    if let Some(backend) = &mut backend {
        backend.wait()?;
    }
    let errors = fs::read_to_string(errors)?;
    ensure!(
        said.contains("MINI exit 0"),
        "{}: {errors}{said}",
        contender.name()
    );
    readings.push(reading("memory of the backend, KiB", footprint.kib));
    readings.push(reading("descriptors of the backend", footprint.descriptors));
    Ok(readings)
}
