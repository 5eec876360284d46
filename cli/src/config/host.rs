//! The host file, `host.toml`: directories, the network, and presets for every slot.

use super::net::HostNetFile;
use super::reader::Table;
use super::slot::{Common, Setting};
use super::snapshot::HostSnapshotFile;
use super::values::{AbsolutePath, DataSetName};

/// What the host file says.
#[derive(Debug, Default)]
pub(crate) struct HostFile {
    /// `state_dir`: slots' images.
    pub(crate) state_dir: Setting<AbsolutePath>,
    /// `assignments`: which slot has which state.
    pub(crate) assignments: Setting<AbsolutePath>,
    /// `run_dir`: sockets.
    pub(crate) run_dir: Setting<AbsolutePath>,
    /// `cache_dir`: unpacked kernels.
    pub(crate) cache_dir: Setting<AbsolutePath>,
    /// `[snapshot]`
    pub(crate) snapshot: HostSnapshotFile,
    /// `zfs.dataset`: the data set above those of states.
    pub(crate) data_set: Setting<DataSetName>,
    /// `[net]`
    pub(crate) net: HostNetFile,
    /// `[defaults]`
    pub(crate) defaults: Common,
}

impl HostFile {
    /// Reads the host file.
    pub(crate) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            state_dir: table.get("state_dir"),
            assignments: table.get("assignments"),
            run_dir: table.get("run_dir"),
            cache_dir: table.get("cache_dir"),
            snapshot: HostSnapshotFile::read(table.table("snapshot")),
            data_set: Self::read_zfs(table.table("zfs")),
            net: HostNetFile::read(table.table("net")),
            defaults: Self::read_defaults(table.table("defaults")),
        };
        table.finish();
        file
    }

    fn read_zfs(mut table: Table<'_>) -> Setting<DataSetName> {
        let dataset = table.get("dataset");
        table.finish();
        dataset
    }

    fn read_defaults(mut table: Table<'_>) -> Common {
        let defaults = Common::read(&mut table);
        table.finish();
        defaults
    }
}
