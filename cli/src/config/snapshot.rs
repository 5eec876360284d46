//! `[snapshot]`: what the host file and a slot's file say of snapshots.

use super::reader::{Ranged, Table};
use super::slot::Setting;
use super::values::Keep;
use super::words::Backend;

/// More MiB a second than any disk writes.
const MAX_RATE: i64 = 1 << 20;

/// A minute: beyond, guests take themselves for broken.
const MAX_PAUSE: i64 = 60_000;

/// `[snapshot]` of the host file: how snapshots and copies of states are made, and how many are kept.
#[derive(Debug, Default)]
pub(crate) struct HostSnapshotFile {
    /// `backend`: how copies are made.
    pub(crate) backend: Setting<Backend>,
    /// `keep`: what `state gc` keeps.
    pub(crate) keep: Setting<Keep>,
    /// `rate`, `pause_limit`, `fsfreeze`: for every slot.
    pub(crate) running: RunningSnapshotFile,
}

/// `[snapshot]` of a slot's file: how snapshots are taken while it runs.
#[derive(Debug, Default)]
pub(crate) struct RunningSnapshotFile {
    /// `rate`: most MiB a second that are copied of a running slot's disk.
    pub(crate) rate: Setting<Ranged<1, MAX_RATE>>,
    /// `pause_limit`: longest time in milliseconds for which a running slot may be halted.
    pub(crate) pause_limit: Setting<Ranged<1, MAX_PAUSE>>,
    /// `fsfreeze`: whether the guest freezes its file systems.
    pub(crate) fsfreeze: Setting<bool>,
}

impl HostSnapshotFile {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            backend: table.get("backend"),
            keep: table.get("keep"),
            running: RunningSnapshotFile::keys(&mut table),
        };
        table.finish();
        file
    }
}

impl RunningSnapshotFile {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let file = Self::keys(&mut table);
        table.finish();
        file
    }

    fn keys(table: &mut Table<'_>) -> Self {
        Self {
            rate: table.get("rate"),
            pause_limit: table.get("pause_limit"),
            fsfreeze: table.get("fsfreeze"),
        }
    }
}
