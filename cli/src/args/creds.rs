//! `creds`.

use clap::Subcommand;

// Arguments of `creds`.
#[derive(Debug, Subcommand)]
pub(crate) enum CredsCommand {
    /// Show the names, sizes and sources of a slot's credentials
    #[command(after_help = "Examples:
  slotvmm creds list slot1
  slotvmm creds list slot1 --json")]
    List {
        /// Name of a slot, or path of a slot's file
        slot: String,
    },
    /// Check that every credential of a slot can be read
    #[command(
        after_help = "What lies in $CREDENTIALS_DIRECTORY can be checked while the slot's unit runs, by root. The exit
code tells what is wrong: docs/exit-codes.md.

Examples:
  slotvmm creds check slot1"
    )]
    Check {
        /// Name of a slot, or path of a slot's file
        slot: String,
    },
}
