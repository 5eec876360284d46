//! `net`.

use clap::Subcommand;

// Arguments of `net`.
#[derive(Debug, Subcommand)]
pub(crate) enum NetCommand {
    /// Bring up bridges, taps and rules of slots; needs CAP_NET_ADMIN
    #[command(
        after_help = "Without a slot: all that are configured. Does only what is missing.

Examples:
  slotvmm net apply
  slotvmm net apply slot1 --user microvm    whom the tap belongs to
  slotvmm net apply slot1 --dry-run"
    )]
    Apply {
        /// Names of slots
        slots: Vec<String>,
        /// Owner of the taps, by name or number [default: `net.user` of host.toml, else root]
        #[arg(long)]
        user: Option<String>,
        /// Print what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Print what `net apply` would do
    #[command(after_help = "Examples:
  slotvmm net plan
  slotvmm net plan slot1 --json    with the rules")]
    Plan {
        /// Names of slots
        slots: Vec<String>,
        /// Owner of the taps, by name or number [default: `net.user` of host.toml, else root]
        #[arg(long)]
        user: Option<String>,
    },
    /// Remove what `net apply` made, and nothing else; needs CAP_NET_ADMIN
    #[command(
        after_help = "Without a slot: everything. Other slots keep their rules.

Examples:
  slotvmm net down slot1
  slotvmm net down"
    )]
    Down {
        /// Names of slots
        slots: Vec<String>,
        /// Print what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what is, what should be, and what others have in the way
    #[command(after_help = "Examples:
  slotvmm net status
  slotvmm net status slot1 --json    every fact, expected and actual")]
    Status {
        /// Names of slots
        slots: Vec<String>,
    },
    /// Print the rules of slots as `nft -f` reads them
    #[command(after_help = "Examples:
  slotvmm net print
  slotvmm net print slot1 | nft --check --file -")]
    Print {
        /// Names of slots
        slots: Vec<String>,
    },
}
