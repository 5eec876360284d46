//! A slot's sockets to the host.

use serde::Serialize;

use hostnet::slot::SlotIndex;

use crate::config::LoadedSlot;

/// Position of the socket device, behind the entropy source: a slot that switches it off keeps
/// every other device in its place.
const POSITION: u8 = 13;

/// CIDs 0 to 2 are reserved, so that slot 1 has the first one that is free.
const RESERVED_CIDS: u32 = 2;

/// The socket device of a slot.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Vsock {
    /// The guest's address; the host is 2.
    pub(crate) cid: u32,
    /// Its position.
    pub(crate) position: u8,
    /// Whether the guest gets a key for `slotvmm ssh`, a new one for each boot.
    pub(crate) ssh: bool,
}

/// The slot's device, unless it is switched off.
pub(super) fn resolve(loaded: &LoadedSlot, index: SlotIndex) -> Option<Vsock> {
    let file = &loaded.file.vsock;
    if file.enabled.as_ref().is_some_and(|set| !set.value) {
        return None;
    }
    let derived = RESERVED_CIDS.saturating_add(u32::from(index.get()));
    let set = file.cid.as_ref();
    Some(Vsock {
        // The schema admits what a CID can be, and nothing else.
        cid: set.map_or(derived, |set| u32::try_from(set.value.0).unwrap_or(derived)),
        position: POSITION,
        ssh: file.ssh.as_ref().is_none_or(|set| set.value),
    })
}
