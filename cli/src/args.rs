//! What the user typed. No I/O here, and no defaults that depend on the host.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs slots: microVMs with a fixed network identity and portable state.
#[derive(Debug, Parser)]
#[command(
    name = "slotvmm",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "Examples:
  slotvmm run slot1 --console     boot slot1 and sit at its serial console
  slotvmm stop slot1              press its power button and wait
  slotvmm config check            check every file in /etc/slotvmm
  slotvmm doctor                  say what this host lacks")]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Configuration directory
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "SLOTVMM_CONFIG",
        default_value = "/etc/slotvmm"
    )]
    pub(crate) config: PathBuf,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more to stderr; twice for debugging. SLOTVMM_LOG takes a filter such as "vmm=debug"
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a slot and stay until its guest is done
    Run(Run),
    /// Press the power button of a running slot and wait until it is off
    Stop(Stop),
    /// Halt the processors of a running slot
    Pause(SlotArg),
    /// Let a paused slot go on
    Resume(SlotArg),
    /// Show how a running slot is doing
    Status(Status),
    /// Show every slot that is configured or running
    List,
    /// Attach to the serial console of a running slot
    Console(ConsoleArgs),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make, remove or show the bridge and tap of a slot
    #[command(subcommand)]
    Net(NetCommand),
    /// Say what this host lacks for running slots
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Print the version
    Version,
}

/// `run`
#[derive(Debug, Args)]
#[command(
    after_help = "SIGTERM or SIGINT presses the power button; a second one stops the guest hard.
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

/// A command that takes just a slot.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slotvmm pause slot1
  slotvmm resume slot1")]
pub(crate) struct SlotArg {
    /// Name of the slot
    pub(crate) slot: String,
}

/// `stop`
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

/// `status`
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

/// `console`
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

/// `config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the files of one slot, or all of them
    #[command(after_help = "Examples:
  slotvmm config check
  slotvmm config check slot1
  slotvmm --config ./etc config check")]
    Check {
        /// Name of a slot, or path of a slot's file
        slot: Option<String>,
    },
    /// Show what a slot comes to once every default is applied
    #[command(after_help = "Examples:
  slotvmm config show slot1
  slotvmm config show slot1 --json")]
    Show {
        /// Name of a slot, or path of a slot's file
        slot: String,
    },
}

/// `net`
#[derive(Debug, Subcommand)]
pub(crate) enum NetCommand {
    /// Make bridge and tap of a slot what they should be; needs root
    #[command(after_help = "Examples:
  slotvmm net apply slot1
  slotvmm net apply slot1 --user microvm    whom the tap belongs to
  slotvmm net apply slot1 --dry-run")]
    Apply {
        /// Name of the slot
        slot: String,
        /// Owner of the tap, by name or number [default: `net.user` of host.toml, else root]
        #[arg(long)]
        user: Option<String>,
        /// Print what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove what `net apply` made; needs root
    #[command(after_help = "Examples:
  slotvmm net down slot1")]
    Down {
        /// Name of the slot
        slot: String,
        /// Print what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show bridge and tap of a slot, or of all configured slots
    #[command(after_help = "Examples:
  slotvmm net status
  slotvmm net status slot1 --json")]
    Status {
        /// Name of a slot
        slot: Option<String>,
    },
}

/// `doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: slots can run here. 31: something is missing. 33: KVM cannot run guests here.

Examples:
  slotvmm doctor
  slotvmm doctor slot1       also check what slot1 needs"
)]
pub(crate) struct Doctor {
    /// Name of a slot to check as well
    pub(crate) slot: Option<String>,
}

/// `completion`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slotvmm completion bash > /etc/bash_completion.d/slotvmm")]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_that_takes_arguments_has_examples() {
        fn check(command: &clap::Command) {
            let takes_arguments = command.get_positionals().next().is_some();
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                !takes_arguments || help.contains("Examples:"),
                "{}",
                command.get_name()
            );
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
