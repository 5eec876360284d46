//! `[vsock]`: what a slot's file may say of its sockets to the host.

use super::reader::{Ranged, Table};
use super::slot::Setting;

/// `[vsock]`
#[derive(Debug, Default)]
pub(crate) struct VsockFile {
    /// `enabled`: whether there is a socket device.
    pub(crate) enabled: Setting<bool>,
    /// `ssh`: whether the guest gets a key for `slotvmm ssh`.
    pub(crate) ssh: Setting<bool>,
    /// `cid`: the guest's address.
    pub(crate) cid: Setting<Ranged<3, 4_294_967_294>>,
}

impl VsockFile {
    /// Reads the table.
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            enabled: table.get("enabled"),
            ssh: table.get("ssh"),
            cid: table.get("cid"),
        };
        table.finish();
        file
    }
}
