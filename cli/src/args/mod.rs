//! What the user typed. No I/O here, and no defaults that depend on the host. One file per group of
//! verbs. Structures of arguments have no documentation comment: clap would print it instead of the
//! verb's.

mod bench;
mod config;
mod creds;
mod fs;
mod host;
mod net;
mod slot;
mod state;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::bench::{BenchBoot, BenchCommand, Compared, OtherProgram, Until};
pub(crate) use self::config::ConfigCommand;
pub(crate) use self::creds::CredsCommand;
pub(crate) use self::fs::{Cache, FsBackend, Sandbox};
pub(crate) use self::host::{Completion, Doctor};
pub(crate) use self::net::NetCommand;
pub(crate) use self::slot::{
    BootReport, ConsoleArgs, Logs, Run, SlotArg, Ssh, Status, Stop, VsockConnect,
};
pub(crate) use self::state::{
    Assign, Delete, Export, Fsck, Gc, Import, Reset, Snapshot, Source, StateCommand, Target,
};

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
// The arguments of a verb are described when it is typed: to describe all of them takes longer than
// to read a slot's configuration.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Boot a slot and stay until its guest is done
    Run(Run),
    /// Start a slot's systemd unit and wait until it is up
    Start(SlotArg),
    /// Restart a slot's systemd unit
    Restart(SlotArg),
    /// Show what a slot and its console said, from the journal
    Logs(Logs),
    /// Press the power button of a running slot and wait until it is off
    Stop(Stop),
    /// Halt the processors of a running slot
    Pause(SlotArg),
    /// Let a paused slot go on
    Resume(SlotArg),
    /// Show how a running slot is doing
    Status(Status),
    /// Show where a slot's boot spent its time
    BootReport(BootReport),
    /// Show every slot that is configured or running
    List,
    /// Attach to the serial console of a running slot
    Console(ConsoleArgs),
    /// Log in to a guest, or run a command there
    Ssh(Ssh),
    /// Connect to a port of a guest for `ssh`
    #[command(hide = true)]
    VsockConnect(VsockConnect),
    /// Take a snapshot of the state that a slot has
    Snapshot(Snapshot),
    /// Make, copy, move and remove states: the data of slots
    State(Below<StateCommand>),
    /// Check or show the configuration
    Config(Below<ConfigCommand>),
    /// Make, remove or show the slots' network on this host
    Net(Below<NetCommand>),
    /// Show or check the credentials of a slot, never their values
    Creds(Below<CredsCommand>),
    /// Share a directory with a guest, read-only, as a vhost-user backend
    FsBackend(FsBackend),
    /// Measure slots
    Bench(Below<BenchCommand>),
    /// Say what this host lacks for running slots
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Print the version
    Version,
}

// The verbs below a verb. A structure of its own, because clap defers those and no enumerations.
#[derive(Debug, Args)]
pub(crate) struct Below<V: Subcommand> {
    #[command(subcommand)]
    pub(crate) verb: V,
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
    fn a_verb_is_described_alike_in_the_list_and_in_its_own_help() {
        let abouts = |command: &clap::Command| -> Vec<_> {
            let verbs = command.get_subcommands();
            verbs
                .filter(|verb| verb.get_name() != "help")
                .map(|verb| (verb.get_name().to_owned(), verb.get_about().cloned()))
                .collect()
        };
        let mut command = Cli::command();
        let list = abouts(&command);
        command.build();
        assert_eq!(abouts(&command), list);
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
        let mut command = Cli::command();
        // Arguments of verbs are described only then.
        command.build();
        check(&command);
    }
}
