//! The host file, `host.toml`: directories, the network, and presets for every slot.

use super::net::HostNetFile;
use super::reader::Table;
use super::slot::{Common, Setting};
use super::values::AbsolutePath;

/// What the host file says.
#[derive(Debug, Default)]
pub(crate) struct HostFile {
    /// `state_dir`: slots' images.
    pub(crate) state_dir: Setting<AbsolutePath>,
    /// `run_dir`: sockets.
    pub(crate) run_dir: Setting<AbsolutePath>,
    /// `cache_dir`: unpacked kernels.
    pub(crate) cache_dir: Setting<AbsolutePath>,
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
            run_dir: table.get("run_dir"),
            cache_dir: table.get("cache_dir"),
            net: HostNetFile::read(table.table("net")),
            defaults: Self::read_defaults(table.table("defaults")),
        };
        table.finish();
        file
    }

    fn read_defaults(mut table: Table<'_>) -> Common {
        let defaults = Common::read(&mut table);
        table.finish();
        defaults
    }
}
