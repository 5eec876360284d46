//! `console`: attaches to the serial console of a running slot.

use std::io::{IsTerminal as _, stdin};

use nix::sys::signal::Signal;

use super::{CommandError, Context, name};
use crate::args::ConsoleArgs;
use crate::client::no_socket;
use crate::console::{End, block_signals, connect, relay};
use crate::exit::Exit;

/// The signals that end an attached console, with the terminal brought back.
const ENDING: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// Attaches to a running slot.
pub(super) fn console(args: &ConsoleArgs, context: &Context) -> Result<Exit, CommandError> {
    let name = name(&args.slot)?;
    let path = context.paths()?.console_socket(&name);
    let socket = connect(&path).map_err(|error| no_socket("console", &name, &path, error))?;
    let interactive = stdin().is_terminal();
    if interactive {
        eprintln!("Attached to {name}; Ctrl-A x detaches");
    }
    let signals = block_signals(&ENDING).map_err(CommandError::on("handle signals"))?;
    let end = relay(socket, &signals).map_err(CommandError::on("relay the console"))?;
    match end {
        End::Detached => eprintln!("\nDetached from {name}"),
        End::Closed if interactive => eprintln!("\n{name} has ended"),
        End::Closed => {}
        End::Signal(_) => return Ok(Exit::Failed),
    }
    Ok(Exit::Success)
}
