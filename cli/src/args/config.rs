//! `config`.

use clap::Subcommand;

// Arguments of `config`.
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
