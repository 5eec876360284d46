//! What the user typed.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

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
    /// Open a shell in the lab.
    Shell {
        /// The machine it runs in.
        #[command(flatten)]
        machine: MachineArgs,
    },
}

/// The machine that a command runs in (ignored where the processor has hardware virtualisation,
/// except the time limit).
#[derive(Clone, Copy, Debug, Args)]
pub struct MachineArgs {
    /// Processors of the emulated machine.
    #[arg(long, default_value_t = 2)]
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
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}
