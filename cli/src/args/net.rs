//! `net`.

use clap::Subcommand;

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
