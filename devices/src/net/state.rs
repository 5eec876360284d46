//! What a saved card consists of, beyond what the transport saves. Neither address nor tap: those
//! belong to the slot, never to a state.

use serde::{Deserialize, Serialize};

use crate::state::{StateBlob, StateError};

pub(super) const KIND: &str = "net";
const VERSION: u16 = 1;

/// Saved state of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStateV1 {
    /// Pairs of queues the card had.
    pub queue_pairs: u16,
}

impl NetStateV1 {
    pub(super) fn encode(self) -> Result<StateBlob, StateError> {
        StateBlob::encode(KIND, VERSION, &self)
    }

    /// Reads a saved card and checks that a card with `queue_pairs` can take its place.
    pub(super) fn checked(blob: &StateBlob, queue_pairs: u16) -> Result<Self, StateError> {
        let state: Self = blob.decode(KIND, VERSION)?;
        if state.queue_pairs != queue_pairs {
            return Err(StateError::Invalid {
                kind: KIND,
                field: "queue_pairs",
            });
        }
        Ok(state)
    }
}
