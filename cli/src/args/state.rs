//! `state` and `snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use store::{Name, Retention, SnapshotRef};

// Arguments of `snapshot`.
#[derive(Debug, Args)]
#[command(
    after_help = "The snapshot is of the state that the slot has; restore it with `slotvmm state restore`.

Examples:
  slotvmm snapshot slot1 before-update
  slotvmm snapshot slot1 before-update --fsfreeze"
)]
pub(crate) struct Snapshot {
    /// Name of the slot
    pub(crate) slot: Name,
    /// Name of the new snapshot
    pub(crate) snapshot: Name,
    /// Copy at most so many MiB a second, where blocks cannot be shared, instead of what the slot's file or host.toml says;
    /// writes of the guest do not wait for that
    #[arg(long, value_name = "MIB")]
    pub(crate) rate: Option<u32>,
    /// Give up when the guest would be halted for longer, instead of what the slot's file or host.toml says or 1000
    #[arg(long, value_name = "MS")]
    pub(crate) pause_limit: Option<u32>,
    /// Have the guest freeze its file systems for the moment: nothing is to be replayed after. Takes
    /// slotvmm-guest in the guest
    #[arg(long)]
    pub(crate) fsfreeze: bool,
    /// Have it not, whatever the slot's file or host.toml says
    #[arg(long, conflicts_with = "fsfreeze")]
    pub(crate) no_fsfreeze: bool,
}

impl Snapshot {
    /// As if nothing but the names had been typed.
    pub(crate) fn of(slot: Name, snapshot: Name) -> Self {
        Self {
            slot,
            snapshot,
            rate: None,
            pause_limit: None,
            fsfreeze: false,
            no_fsfreeze: false,
        }
    }
}

// Arguments of `state`.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Show slots, states and snapshots
    List,
    /// Make a state without an image; the first slot that boots with it makes one
    #[command(
        after_help = "--from-slot makes the image that a slot has of its own, a regular data.img, the state's, and gives
the slot the state.

Examples:
  slotvmm state create dev-env
  slotvmm state create dev-env --from-slot slot1"
    )]
    Create {
        /// Name of the new state
        name: Name,
        /// Take the image that this slot has of its own
        #[arg(long, value_name = "SLOT")]
        from_slot: Option<Name>,
    },
    /// Take a snapshot of the state that a slot has
    Snapshot(Snapshot),
    /// Have a slot boot with a state, from its next start on
    Assign(Assign),
    /// Make an independent copy of a state
    #[command(
        after_help = "Snapshots are not copied. `slot:slot1` means the state that slot1 has. --reset-identity needs
slotvmm-identity.service in the guest.

Examples:
  slotvmm state clone prod-env test-env --reset-identity
  slotvmm state clone slot:slot1 test-env"
    )]
    Clone {
        /// Name of the state, or slot:SLOT for the state that a slot has
        #[arg(value_name = "STATE|slot:SLOT")]
        source: Source,
        /// Name of the new state
        new: Name,
        /// Have the guest renew its machine id, SSH host keys and random seed at its first boot
        #[arg(long)]
        reset_identity: bool,
    },
    /// Remove a state with all its snapshots, or one snapshot
    Delete(Delete),
    /// Move a state to another slot, and start that
    #[command(
        after_help = "Stops the slot, and the one that has the state. If the slot does not come up with the state,
everything is put back and started again.

Examples:
  slotvmm state migrate dev-env slot3"
    )]
    Migrate {
        /// Name of the state
        state: Name,
        /// Name of the slot
        slot: Name,
    },
    /// Make a state from a snapshot
    #[command(
        after_help = "A name without a state is enough when only one state has a snapshot of that name.

Examples:
  slotvmm state restore dev-env@before-update recovered
  slotvmm state restore before-update recovered"
    )]
    Restore {
        /// The snapshot
        #[arg(value_name = "[STATE@]SNAPSHOT")]
        snapshot: SnapshotRef,
        /// Name of the new state
        new: Name,
    },
    /// Take the image away from the state of a slot, so that its next start makes a new one
    Reset(Reset),
    /// Remove old snapshots
    Gc(Gc),
    /// Write a state or a snapshot to a file or pipe
    Export(Export),
    /// Make a state, or a snapshot of one, from what was exported
    Import(Import),
    /// Find what is not as it should be, and explain it
    Fsck(Fsck),
}

/// `state assign`
#[derive(Debug, Args)]
#[command(
    after_help = "A state that does not exist is made. An image that the slot had of its own becomes
data.img.backup. --move takes the state from the slot that has it; it is refused while that runs.

Examples:
  slotvmm state assign slot2 dev-env
  slotvmm state assign slot2 dev-env --move"
)]
pub(crate) struct Assign {
    /// Name of the slot
    pub(crate) slot: Name,
    /// Name of the state
    pub(crate) state: Name,
    /// Take the state from the slot that has it
    #[arg(long)]
    pub(crate) r#move: bool,
}

/// `state delete`
#[derive(Debug, Args)]
#[command(after_help = "Asks before it does: type DELETE, or give --yes.

Examples:
  slotvmm state delete test-env
  slotvmm state delete dev-env@before-update --yes")]
pub(crate) struct Delete {
    /// Name of the state, or STATE@SNAPSHOT
    #[arg(value_name = "STATE[@SNAPSHOT]")]
    pub(crate) target: Target,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `state reset`
#[derive(Debug, Args)]
#[command(
    after_help = "The image becomes a snapshot, which takes no time and no space. --discard removes it instead,
after asking: type DELETE, or give --yes.

Examples:
  slotvmm state reset slot1
  slotvmm state reset slot1 --discard --yes"
)]
pub(crate) struct Reset {
    /// Name of the slot
    pub(crate) slot: Name,
    /// Remove the image instead of keeping it as a snapshot
    #[arg(long)]
    pub(crate) discard: bool,
    /// Do not ask
    #[arg(long, requires = "discard")]
    pub(crate) yes: bool,
}

/// `state gc`
#[derive(Debug, Args)]
#[command(
    after_help = "Rules keep the newest snapshot of each of so many hours, days or weeks (UTC) that have one; what
any rule keeps is kept. The default is `snapshot.keep` in host.toml, or 10.

Examples:
  slotvmm state gc
  slotvmm state gc dev-env --keep hourly:24,daily:7,weekly:4 --dry-run"
)]
pub(crate) struct Gc {
    /// Name of a state; all of them if left out
    pub(crate) state: Option<Name>,
    /// How many to keep, or rules
    #[arg(long, value_name = "N|RULES")]
    pub(crate) keep: Option<Retention>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `state export`
#[derive(Debug, Args)]
#[command(
    after_help = "Compressed, without holes, each part with a digest. Only a snapshot can be sent as changes or go on
after a break: a state may be different the next time.

Examples:
  slotvmm state export dev-env | ssh other slotvmm state import dev-env
  slotvmm state export dev-env@monday monday.state
  slotvmm state export dev-env@tuesday --since monday | ssh other slotvmm state import dev-env
  slotvmm state export dev-env@monday --from 1073741824 | ssh other slotvmm state import dev-env"
)]
pub(crate) struct Export {
    /// Name of the state, or STATE@SNAPSHOT
    #[arg(value_name = "STATE[@SNAPSHOT]")]
    pub(crate) source: Target,
    /// Where to; standard output if left out
    pub(crate) file: Option<PathBuf>,
    /// Send only what differs from this snapshot, which the other side has
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) since: Option<Name>,
    /// Go on at this byte of the image, as an interrupted import says
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        conflicts_with = "since"
    )]
    pub(crate) from: u64,
}

/// `state import`
#[derive(Debug, Args)]
#[command(
    after_help = "Everything of a snapshot makes a new state that has the snapshot as well; changes make a snapshot of
a state that is there.

Examples:
  slotvmm state import dev-env monday.state
  ssh other slotvmm state export dev-env | slotvmm state import dev-env"
)]
pub(crate) struct Import {
    /// Name of the state
    pub(crate) state: Name,
    /// Where from; standard input if left out
    pub(crate) file: Option<PathBuf>,
}

/// `state fsck`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 if anything is found that stays. Only --repair changes anything.

Examples:
  slotvmm state fsck
  slotvmm state fsck --repair"
)]
pub(crate) struct Fsck {
    /// Mend what can be mended without a choice
    #[arg(long)]
    pub(crate) repair: bool,
}

/// What is cloned.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A state.
    State(Name),
    /// The state that a slot has.
    Slot(Name),
}

impl std::str::FromStr for Source {
    type Err = store::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("slot:") {
            Some(slot) => slot.parse().map(Self::Slot),
            None => text.parse().map(Self::State),
        }
    }
}

/// What is deleted.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A state with all its snapshots.
    State(Name),
    /// A snapshot.
    Snapshot(SnapshotRef),
}

impl std::str::FromStr for Target {
    type Err = store::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') {
            return text.parse().map(Self::Snapshot);
        }
        text.parse().map(Self::State)
    }
}
