//! `completion` and `version`.

use clap::CommandFactory as _;
use serde::Serialize;

use super::{CommandError, Context};
use crate::args::{Cli, Completion};
use crate::exit::Exit;
use crate::output::{Report, print, print_text};

/// Prints a completion script.
pub(super) fn completion(args: &Completion) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "slotvmm", &mut script);
    print_text(&String::from_utf8_lossy(&script)).map_err(CommandError::on("print the script"))?;
    Ok(Exit::Success)
}

/// Prints the version.
pub(super) fn version(context: &Context) -> Result<Exit, CommandError> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        arch: std::env::consts::ARCH,
    };
    print(&version, context.format).map_err(CommandError::on("print the version"))?;
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    arch: &'static str,
}

impl Report for Version {
    fn text(&self) -> String {
        format!("slotvmm {} ({})", self.version, self.arch)
    }
}
