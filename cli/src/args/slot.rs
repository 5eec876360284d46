//! The verbs about one slot: `run`, `start`, `stop`, `restart`, `logs`, `pause`, `resume`,
//! `status`, `console`, `ssh`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGTERM, SIGINT or SIGHUP presses the power button; a second one stops the guest hard.
The exit code tells how the guest ended: docs/exit-codes.md.

Examples:
  slotvmm run slot1
  slotvmm run slot1 --console     Ctrl-A x leaves the console, the guest goes on
  slotvmm run slot1 --phases      print where the boot spent its time
  slotvmm run slot1 --dry-run     print the plan, touch nothing
  slotvmm run ./web.toml          a slot whose file lies elsewhere"
)]
pub(crate) struct Run {
    /// Name of a slot, or path of a slot's file (with a slash, or ending in .toml or .json)
    pub(crate) slot: String,
    /// Connect this terminal to the guest's serial console
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) console: bool,
    /// Print the full plan and start nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the phases of the boot when the guest is done
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) phases: bool,
    /// Run although the processor shows no hardware virtualisation: tiny guests may work, stock
    /// kernels spin for ever
    #[arg(long)]
    pub(crate) ignore_cpu_check: bool,
}

// Arguments of the verbs that take just a slot.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slotvmm start slot1
  slotvmm pause slot1
  slotvmm resume slot1")]
pub(crate) struct SlotArg {
    /// Name of the slot
    pub(crate) slot: String,
}

// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --timeout it waits for as long as the guest takes.

Examples:
  slotvmm stop slot1
  slotvmm stop slot1 --timeout 60    stop hard after a minute, exit code 22
  slotvmm stop slot1 --timeout 0     stop hard at once, exit code 22"
)]
pub(crate) struct Stop {
    /// Name of the slot
    pub(crate) slot: String,
    /// Stop hard after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
}

// Arguments of `logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "The slot's own messages and everything its guest prints on the serial console, as journalctl
shows the unit slotvmm@<slot>.service.

Examples:
  slotvmm logs slot1 --follow
  slotvmm logs slot1 --lines 50"
)]
pub(crate) struct Logs {
    /// Name of the slot
    pub(crate) slot: String,
    /// Go on with what is said from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show only so many of the last lines
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<u32>,
}

// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slotvmm status slot1
  slotvmm status slot1 --phases
  slotvmm status slot1 --json")]
pub(crate) struct Status {
    /// Name of the slot
    pub(crate) slot: String,
    /// Print the phases of its boot
    #[arg(long)]
    pub(crate) phases: bool,
}

// Arguments of `boot-report`.
#[derive(Debug, Args)]
#[command(
    after_help = "Of a running slot, or of the boot that ended last. A running guest that `slotvmm ssh` reaches on its
socket is asked for the times of its systemd units, and of its initcalls when its kernel was told
`initcall_debug`.

Examples:
  slotvmm boot-report slot1
  slotvmm boot-report slot1 --svg boot.svg
  slotvmm boot-report slot1 --json"
)]
pub(crate) struct BootReport {
    /// Name of the slot
    pub(crate) slot: String,
    /// Draw the boot
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

// Arguments of `console`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-A x detaches, Ctrl-A Ctrl-A sends one Ctrl-A. What the guest printed last is shown first.
When standard input is not a terminal, bytes are passed on as they are, and output is printed until
the guest ends.

Examples:
  slotvmm console slot1
  slotvmm console slot1 < /dev/null      only watch"
)]
pub(crate) struct ConsoleArgs {
    /// Name of the slot
    pub(crate) slot: String,
}

// Arguments of `ssh`.
#[derive(Debug, Args)]
#[command(
    after_help = "A guest whose SSH server listens on AF_VSOCK (systemd 256 and later) is reached through the
slot's socket, without a network. Any other is reached by its address, with your own keys.

Examples:
  slotvmm ssh slot1
  slotvmm ssh admin@slot1 -- systemctl is-system-running
  slotvmm ssh -i ~/.ssh/slots slot1"
)]
pub(crate) struct Ssh {
    /// Offer this key as well
    #[arg(short, long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Hand this option to ssh, as in ssh_config(5); before those of slotvmm
    #[arg(short = 'o', long = "option", value_name = "OPTION")]
    pub(crate) options: Vec<String>,
    /// Name of the slot; [USER@]SLOT, the user is root unless another is named
    #[arg(value_name = "SLOT")]
    pub(crate) slot: String,
    /// What to run there instead of a shell
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

// Arguments of `vsock-connect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Hands the connection over as ProxyUseFdpass of ssh_config(5) expects it.

Examples:
  ProxyCommand slotvmm vsock-connect %n 22"
)]
pub(crate) struct VsockConnect {
    /// Name of the slot
    pub(crate) slot: String,
    /// Port of the guest
    pub(crate) port: u32,
}
