//! The matrix's part inside the lab: boots the mini guest with every kernel, processor count and
//! memory size, and checks that the guest sees what it was given.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::demo::scratch;
use super::slot::{BootTable, DataTable, MachineTable, Running, Slot, SlotFile};
use crate::kernels::KernelId;
use crate::process;

const VCPUS: [u32; 4] = [1, 2, 3, 6];
const MEMORY_MIB: [u32; 4] = [256, 2048, 3584, 5120];

/// A boot that takes longer counts as failed.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// What the matrix works on.
#[derive(Debug, Args)]
pub struct MatrixArgs {
    /// The slotvmm program.
    #[arg(long)]
    pub program: PathBuf,
    /// The directory of all images.
    #[arg(long)]
    pub images: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    pub only: String,
}

/// How the kernel reaches slotvmm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// In a bootstrap, as the distribution's bzImage.
    Bootstrap,
    /// As a bzImage file.
    BzImage,
    /// As the ELF file from inside the bzImage.
    Vmlinux,
}

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Short name of the kernel.
    pub kernel: String,
    /// How it reaches slotvmm.
    pub boot: Boot,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory_mib: u32,
}

/// How a boot went. Printed as one line of JSON each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which boot.
    pub case: Case,
    /// What was wrong, if anything.
    pub problem: Option<String>,
    /// From the start of slotvmm to its end, guest power-off included.
    pub seconds: f32,
}

impl Case {
    /// All of them: every kernel from a bootstrap in every size, then every kernel as a file.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let case = |kernel: KernelId, boot, vcpus, memory_mib| Self {
            kernel: kernel.name().to_owned(),
            boot,
            vcpus,
            memory_mib,
        };
        let sizes = || {
            VCPUS
                .iter()
                .flat_map(|cpus| MEMORY_MIB.iter().map(move |mib| (*cpus, *mib)))
        };
        let sized = KernelId::ALL
            .iter()
            .flat_map(|id| sizes().map(move |(cpus, mib)| case(*id, Boot::Bootstrap, cpus, mib)));
        let formats = KernelId::ALL
            .iter()
            .flat_map(|id| [Boot::BzImage, Boot::Vmlinux].map(|boot| case(*id, boot, 1, 256)));
        sized.chain(formats).collect()
    }

    fn name(&self) -> String {
        format!(
            "{} {:?} {} vcpus {} MiB",
            self.kernel, self.boot, self.vcpus, self.memory_mib
        )
    }

    fn slot_file(&self, images: &Path) -> SlotFile {
        let kernel = images.join("kernels").join(&self.kernel);
        let files = |image: &str| BootTable {
            kernel: Some(kernel.join(image)),
            initrd: Some(kernel.join("initrd")),
            params: words("console=ttyS0 quiet panic=-1 mini.then=poweroff"),
            bootstrap: None,
        };
        let boot = match self.boot {
            Boot::Bootstrap => BootTable {
                bootstrap: Some(images.join(format!("mini/{}.squashfs", self.kernel))),
                params: words("mini.then=poweroff"),
                ..BootTable::default()
            },
            Boot::BzImage => files("bzImage"),
            Boot::Vmlinux => files("vmlinux"),
        };
        SlotFile {
            boot,
            machine: MachineTable {
                vcpus: Some(self.vcpus),
                memory: Some(self.memory_mib),
            },
            data: Some(DataTable { size: 64 }),
        }
    }

    /// What is wrong with what the guest printed.
    fn complaint(&self, console: &str) -> Option<String> {
        let facts = console
            .lines()
            .find_map(|line| line.trim().strip_prefix("MINI cpus "));
        let Some(facts) = facts else {
            return Some(format!(
                "no word from the guest: {}",
                process::tail(console, 3)
            ));
        };
        let mut words = facts.split_whitespace();
        let cpus = words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0_u32);
        let mib = words
            .nth(1)
            .and_then(|word| word.parse().ok())
            .map_or(0_u32, |kib: u32| kib / 1024);
        // The kernel keeps up to a third of a small memory for itself before it counts.
        let enough = self.memory_mib - self.memory_mib / 10 - 64;
        if cpus != self.vcpus {
            return Some(format!("the guest sees {cpus} processors"));
        }
        (mib < enough || mib > self.memory_mib).then(|| format!("the guest sees {mib} MiB"))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Boots every case, printing an [`Outcome`] for each.
///
/// # Errors
/// When the slot cannot be set up; a failed boot is an outcome.
pub fn matrix(args: &MatrixArgs) -> Result<u8> {
    let cases: Vec<Case> = Case::all()
        .into_iter()
        .filter(|case| case.name().contains(&args.only))
        .collect();
    let dir = tempfile::tempdir_in(scratch()).context("Cannot create a directory for the slot")?;
    let mut network = false;
    for (number, case) in cases.iter().enumerate() {
        let slot = Slot::configure(&args.program, dir.path(), &case.slot_file(&args.images))?;
        if !std::mem::replace(&mut network, true) {
            slot.make_network()?;
        }
        let started = Instant::now();
        let problem = boot(&slot, case, dir.path())?;
        let outcome = Outcome {
            case: case.clone(),
            problem,
            seconds: started.elapsed().as_secs_f32(),
        };
        let verdict = outcome.problem.as_deref().unwrap_or("ok");
        eprintln!(
            "{}/{} {}: {verdict} ({:.1} s)",
            number + 1,
            cases.len(),
            case.name(),
            outcome.seconds
        );
        println!("{}", serde_json::to_string(&outcome)?);
    }
    Ok(0)
}

/// Boots once. Output goes through files: a pipe would stay open with any process left behind.
fn boot(slot: &Slot, case: &Case, dir: &Path) -> Result<Option<String>> {
    let (console, errors) = (dir.join("console"), dir.join("errors"));
    let mut run = slot.command(&["run"]);
    run.arg("--console").stdin(Stdio::null());
    run.stdout(File::create(&console)?)
        .stderr(File::create(&errors)?);
    let ended = Running::start(run)?.wait_until(Instant::now() + BOOT_DEADLINE)?;
    let console = String::from_utf8_lossy(&fs::read(console)?).into_owned();
    let errors = String::from_utf8_lossy(&fs::read(errors)?).into_owned();
    let last = process::tail(&console, 3);
    Ok(match ended {
        None => Some(format!(
            "no end within {} s: {last}",
            BOOT_DEADLINE.as_secs()
        )),
        Some(status) if !status.success() => {
            Some(format!("{status}: {}{last}", process::tail(&errors, 5)))
        }
        Some(_) => case.complaint(&console),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        Case {
            kernel: "6.1-cloud".into(),
            boot: Boot::Bootstrap,
            vcpus: 2,
            memory_mib: 2048,
        }
    }

    #[test]
    fn matrix_has_every_kernel_in_every_size_and_format() {
        assert_eq!(Case::all().len(), 4 * 4 * 4 + 4 * 2);
    }

    #[test]
    fn guest_that_sees_what_it_got_passes() {
        assert_eq!(
            case().complaint("MINI init 1.0\r\nMINI cpus 2 memory_kib 2030000\r\n"),
            None
        );
    }

    #[test]
    fn guest_that_sees_less_fails() {
        let complaint = |text: &str| case().complaint(text).unwrap();
        assert!(complaint("MINI cpus 1 memory_kib 2030000").contains("1 processors"));
        assert!(complaint("MINI cpus 2 memory_kib 1030000").contains("1005 MiB"));
        assert!(complaint("Kernel panic").contains("no word"));
    }
}
