//! `slotvmm-guest`: the program that runs inside of guests, beside systemd.
//!
//! `args` is what was typed; `host` connects to services of the host, `request` speaks to the one
//! that has credentials. `fetch`, `serve`, `ready`, `identity` and `freeze` are the verbs. Knows no
//! crate of the VMM: what they share is the wire, `docs/credentials.md`, `docs/vsock.md` and
//! `docs/states.md`.

#![deny(unsafe_code)]

mod args;
mod fetch;
mod freeze;
mod host;
mod identity;
mod ready;
mod request;
mod serve;

use std::error::Error;
use std::process::ExitCode;

use crate::args::{Command, HELP};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let command = match Command::parse(arguments) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_chain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Help => print!("{HELP}"),
        Command::Version => println!("slotvmm-guest {}", env!("CARGO_PKG_VERSION")),
        Command::Fetch { directory } => fetch::fetch(&directory)?,
        Command::Identity => identity::renew()?,
        Command::Serve => serve::serve()?,
        Command::Ready { target } => ready::ready(&target)?,
        Command::Freeze => freeze::serve()?,
        Command::FreezeListen => freeze::listen_for_host()?,
        Command::FreezeGuard { seconds, places } => freeze::guard(seconds, &places)?,
        Command::Thaw => freeze::thaw()?,
    }
    Ok(())
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
