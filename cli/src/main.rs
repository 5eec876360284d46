//! The `slotvmm` command: runs slots and talks to running ones.
//!
//! [`args`] is what the user typed, [`config`] what the files say, [`resolve`] what a slot is once
//! both are known; [`commands`] has one file per verb.

#![forbid(unsafe_code)]

mod args;
mod boot_record;
mod client;
mod commands;
mod config;
mod console;
mod credentials;
mod disk;
mod exit;
mod logging;
mod output;
mod readiness;
mod resolve;
mod rundir;
mod share;
mod ssh;
mod systemd;
mod tap;
mod vm_state;
mod vsock;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;

use crate::args::Cli;
use crate::commands::{Context, dispatch};

fn main() -> ExitCode {
    let started = Instant::now();
    let arguments: Vec<_> = std::env::args_os().collect();
    if vm_state::is_called(&arguments) {
        return vm_state::main(&arguments, started);
    }
    // Ends the process with code 2 when what was typed makes no sense.
    let cli = Cli::parse_from(arguments);
    logging::start(cli.global.verbose);
    match dispatch(&cli.command, &Context::new(&cli.global, started)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            print_chain(&error);
            error.exit().into()
        }
    }
}

/// Prints an error and everything that caused it, each once.
fn print_chain(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  caused by: {error}");
        cause = error.source();
    }
}
