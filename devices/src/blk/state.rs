//! What a snapshot holds of a disk: nothing but the facts the guest has seen of it.

use serde::{Deserialize, Serialize};

use super::config::{Access, BlkConfig, Discard};
use crate::state::{StateBlob, StateError};

const KIND: &str = "blk";
const VERSION: u16 = 1;

/// What the guest believes about the disk. The image itself comes with the slot; a restored guest
/// has its partitions and limits cached and would not notice another disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkStateV1 {
    /// Size in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Whether the disk is read-only.
    pub read_only: bool,
    /// Whether DISCARD and WRITE_ZEROES are offered.
    pub discard: bool,
}

impl BlkStateV1 {
    /// The state of a disk so configured, of this size.
    pub(super) fn of(config: &BlkConfig, capacity_sectors: u64) -> Self {
        Self {
            capacity_sectors,
            read_only: config.access == Access::ReadOnly,
            discard: config.discard == Discard::Offer,
        }
    }

    pub(super) fn save(&self) -> Result<StateBlob, StateError> {
        StateBlob::encode(KIND, VERSION, self)
    }

    /// Accepts a saved state for a disk that looks like `self`.
    pub(super) fn check(&self, saved: &StateBlob) -> Result<(), StateError> {
        let saved: Self = saved.decode(KIND, VERSION)?;
        let field = match () {
            () if saved.capacity_sectors != self.capacity_sectors => "capacity",
            () if saved.read_only != self.read_only => "access",
            () if saved.discard != self.discard => "discard offer",
            () => return Ok(()),
        };
        Err(StateError::Invalid { kind: KIND, field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_its_version() {
        let state = BlkStateV1 {
            capacity_sectors: 5,
            read_only: true,
            discard: false,
        };
        // Another layout is another version: saved states of this one are still about.
        let saved = state.save().unwrap();
        assert_eq!((saved.version, saved.bytes), (1, vec![5, 1, 0]));
    }
}
