//! What a saved card consists of, beyond what the transport saves. Neither address nor tap: those
//! belong to the slot, never to a state.

use serde::{Deserialize, Serialize};

use super::features;
use crate::state::{StateBlob, StateError};

pub(super) const KIND: &str = "net";
const VERSION: u16 = 1;

/// Saved state of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStateV1 {
    /// Pairs of queues the card had.
    pub queue_pairs: u16,
    /// Pairs that the driver had served; 1 to `queue_pairs`.
    pub active_pairs: u16,
    /// Feature bits of the frames that the driver took unfinished, of those of §5.1.6.5.6.
    pub offloads: u64,
}

/// What a driver can change while the card runs, and finds unchanged after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// Pairs of queues that are served.
    pub(super) active_pairs: u16,
    /// Feature bits of the frames that the driver takes unfinished.
    pub(super) offloads: u64,
}

impl Settings {
    /// Where a driver that acknowledged `features` starts.
    pub(super) fn fresh(features: u64) -> Self {
        Self {
            active_pairs: 1,
            offloads: features & features::offload_bits(),
        }
    }
}

impl NetStateV1 {
    pub(super) fn encode(self) -> Result<StateBlob, StateError> {
        StateBlob::encode(KIND, VERSION, &self)
    }

    /// Reads a saved card and checks that a card with `queue_pairs` can take its place.
    pub(super) fn checked(blob: &StateBlob, queue_pairs: u16) -> Result<Self, StateError> {
        let state: Self = blob.decode(KIND, VERSION)?;
        let invalid = |field| StateError::Invalid { kind: KIND, field };
        if state.queue_pairs != queue_pairs {
            return Err(invalid("queue_pairs"));
        }
        if !(1..=queue_pairs).contains(&state.active_pairs) {
            return Err(invalid("active_pairs"));
        }
        if state.offloads & !features::offload_bits() != 0 {
            return Err(invalid("offloads"));
        }
        Ok(state)
    }

    pub(super) fn settings(self) -> Settings {
        Settings {
            active_pairs: self.active_pairs,
            offloads: self.offloads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_its_version() {
        let state = NetStateV1 {
            queue_pairs: 3,
            active_pairs: 2,
            offloads: 1,
        };
        // Another layout is another version: saved states of this one are still about.
        let saved = state.encode().unwrap();
        assert_eq!((saved.version, saved.bytes), (1, vec![3, 2, 1]));
    }
}
