//! What the user typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::check::Step;
use crate::inside::{
    BenchArgs, DemoArgs, MatrixArgs, MeasureArgs, Peer, ReadsArgs, SharesArgs, ThroughputArgs,
    Variant,
};
use crate::kernels::KernelId;

/// Gives slotvmm a real KVM host with stock kernels on any machine.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the lab can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say where commands run on this machine, and why.
    Env,
    /// Fetch and build everything the lab needs, so that nothing is downloaded later.
    Fetch,
    /// Run a command in the lab; its output and exit status become ours.
    Run {
        /// The machine it runs in.
        #[command(flatten)]
        machine: MachineArgs,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Build slotvmm and a Debian guest, boot it as slot1, log in by ssh.
    Demo,
    /// Run all tests: formatting, lints, documents, flake, unit tests, system tests in the lab.
    Check(CheckArgs),
    /// Run the tests that need a real OpenZFS, on an emulated host with one.
    Zfs(ZfsCommand),
    /// Boot every kernel with every number of processors and size of memory; writes docs/matrix.md.
    Matrix {
        /// Only boots whose name contains this (such as "6.1-cloud"); writes no document.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Measure what a boot costs, beside other monitors: CPU time and KVM exits, with instructions
    /// counted in the emulated lab.
    Measure(MeasureCommand),
    /// Run `slotvmm bench boot` on a stock kernel, beside QEMU and whoever is named.
    Bench(BenchCommand),
    /// Measure what a direct read of a disk costs, beside QEMU and whoever is named, with instructions
    /// counted in the emulated lab.
    Reads(ReadsCommand),
    /// Measure how fast a guest is reached over its network card, beside QEMU, with and without vhost.
    Throughput(ThroughputCommand),
    /// Measure how fast a guest reads a shared directory, beside QEMU with virtiofsd.
    Shares(SharesCommand),
    /// Write what was measured, here and by `cargo bench`, into docs/performance.md.
    Report,
    /// What the lab's commands do inside the lab.
    #[command(subcommand, hide = true)]
    Inside(Inside),
    /// Open a shell in the lab.
    Shell {
        /// The machine it runs in.
        #[command(flatten)]
        machine: MachineArgs,
    },
}

/// Parts of commands that run inside the lab.
#[derive(Debug, Subcommand)]
pub enum Inside {
    /// Boot and log in.
    Demo(DemoArgs),
    /// Boot every case.
    Matrix(MatrixArgs),
    /// Boot every monitor.
    Measure(MeasureArgs),
    /// Boot every monitor with `slotvmm bench boot`.
    Bench(BenchArgs),
    /// Read the disk of every monitor.
    Reads(ReadsArgs),
    /// Transfer to and from every monitor's guest.
    Throughput(ThroughputArgs),
    /// Read a share through every backend.
    Shares(SharesArgs),
}

/// What `systemd/tmpfiles.d/slotvmm-hugepages.conf` sets.
pub const ADVISE: &str = "advise";

/// What to measure.
#[derive(Debug, Args)]
pub struct MeasureCommand {
    /// Kernel to boot.
    #[arg(long, default_value = "6.1-cloud")]
    pub kernel: KernelId,
    /// Boots per monitor, after one that is not counted.
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// Another monitor as NAME=PATH: qemu, cloud-hypervisor, firecracker, or slotvmm-ANYTHING for
    /// another build of ours. A program of its own file, linked statically or against the machine's libraries.
    #[arg(long = "peer", value_name = "NAME=PATH")]
    pub peers: Vec<Peer>,
    /// slotvmm once more with these kernel parameters, as NAME=PARAMS: tells what they save.
    #[arg(long = "with", value_name = "NAME=PARAMS")]
    pub variants: Vec<Variant>,
}

/// A guest that boots are measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchGuest {
    /// A stock kernel and a script that ends the machine at once.
    Mini,
    /// Debian 13 with systemd, until it reports that it is ready.
    Systemd,
}

/// What to boot, and beside whom.
#[derive(Debug, Args)]
pub struct BenchCommand {
    /// What is booted.
    #[arg(long, value_enum, default_value_t = BenchGuest::Mini)]
    pub guest: BenchGuest,
    /// Kernel of the mini guest.
    #[arg(long, default_value = "6.1-cloud")]
    pub kernel: KernelId,
    /// Timed boots of each monitor.
    #[arg(short = 'n', long = "boots", value_name = "N", default_value_t = 5)]
    pub boots: u32,
    /// Count instructions instead of time, where the lab is emulated.
    #[arg(long)]
    pub icount: bool,
    /// Another monitor as NAME=PATH, as of `slotvmm bench boot`; a program of its own file, linked
    /// statically or against the machine's libraries. QEMU is there unless one is named.
    #[arg(long = "peer", value_name = "NAME=PATH")]
    pub peers: Vec<Peer>,
    /// Start so many machines at once instead of comparing with others, as of `slotvmm bench boot`.
    #[arg(long, value_name = "N", conflicts_with = "peers")]
    pub together: Option<u32>,
    /// Processors of the emulated machine; one with counted instructions.
    #[arg(long, default_value_t = 1)]
    pub cpus: u8,
    /// When a boot is over: ready or exit, as of `slotvmm bench boot`.
    #[arg(long)]
    pub until: Option<String>,
    /// Lines of the slot's file besides, such as 'boot.params = ["quiet"]' or 'machine.vcpus = 2'; the
    /// guest's own are replaced.
    #[arg(long = "set", value_name = "TOML")]
    pub set: Vec<toml::Table>,
    /// A directory that gets report.json and report.html.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Another build of slotvmm to measure.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

/// What to read.
#[derive(Debug, Args)]
pub struct ReadsCommand {
    /// Kernel to boot.
    #[arg(long, default_value = "6.1-cloud")]
    pub kernel: KernelId,
    /// Boots per monitor, after one that is not counted.
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// Another monitor as NAME=PATH, as of `measure`. QEMU is there unless one is named.
    #[arg(long = "peer", value_name = "NAME=PATH")]
    pub peers: Vec<Peer>,
}

/// What to transfer.
#[derive(Debug, Args)]
pub struct ThroughputCommand {
    /// Boots per monitor; each is followed by a transfer in either direction.
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// Seconds per transfer.
    #[arg(long, default_value_t = 3)]
    pub seconds: u32,
    /// Another build of slotvmm.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

/// How to measure shared directories.
#[derive(Debug, Args)]
pub struct SharesCommand {
    /// Kernel to boot.
    #[arg(long, default_value = "6.12-cloud")]
    pub kernel: KernelId,
    /// Rounds; every contender has a guest in each.
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// Files in the tree.
    #[arg(long, default_value_t = 20_000)]
    pub files: usize,
    /// Size of the large file, in MiB.
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub large: usize,
    /// Processors of the host, where it is emulated.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cpus: u8,
    /// Count instructions instead of time, where the lab is emulated.
    #[arg(long)]
    pub icount: bool,
    /// Also with a window (`dax`) of this size, in MiB.
    #[arg(long, value_name = "MIB")]
    pub dax: Option<u64>,
    /// Also with a line in the slot's file for the share, such as `quiet=poll = "off"`; may be given again.
    #[arg(long, value_name = "NAME=LINE")]
    pub with: Vec<String>,
    /// Whether the host gives huge pages to guest RAM that backends map: what its
    /// `transparent_hugepage/shmem_enabled` says, where it is emulated.
    #[arg(long, default_value = ADVISE, value_name = "WORD")]
    pub shmem: String,
    /// Another build of slotvmm to compare with, as NAME=PATH.
    #[arg(long, value_name = "NAME=PATH")]
    pub beside: Vec<String>,
    /// Also with other options for virtiofsd, such as `pool=--thread-pool-size=2`; may be given again.
    #[arg(long, value_name = "NAME=OPTIONS")]
    pub virtiofsd: Vec<String>,
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Only these steps.
    #[arg(value_enum)]
    pub steps: Vec<Step>,
    /// Of the system tests, only this program; may be given again.
    #[arg(long = "test", value_name = "NAME")]
    pub tests: Vec<String>,
    /// Boot the whole matrix as well (slow).
    #[arg(long)]
    pub matrix: bool,
}

/// What to do with ZFS.
#[derive(Debug, Args)]
pub struct ZfsCommand {
    /// Keep what OpenZFS was asked and said, for tests that run where there is none.
    #[arg(long)]
    pub record: bool,
}

/// The machine that a command runs in (ignored where the processor has hardware virtualisation,
/// except the time limit).
#[derive(Clone, Copy, Debug, Args)]
pub struct MachineArgs {
    /// Processors of the emulated machine. One is fastest for one guest.
    #[arg(long, default_value_t = 1)]
    pub cpus: u8,
    /// Memory of the emulated machine, in MiB.
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    pub mem: u32,
    /// Kill the command after this many seconds (exit status 124).
    #[arg(long, default_value = "600", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Duration,
    /// Count instructions instead of time: one each nanosecond, on one processor.
    #[arg(long)]
    pub icount: bool,
    /// With OpenZFS in the emulated machine's kernel, and the programs zfs and zpool.
    #[arg(long)]
    pub zfs: bool,
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}
