//! What is saved of a share: what its backend has to remember, which the backend alone can read.
//!
//! For a backend of ours that is which files the guest knows, by their names within the share; where
//! the share lies is not in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::device::DeviceId;
use crate::state::{StateBlob, StateError};
use crate::vhost_user::{Connection, TransferLimits, VhostUserError};

const KIND: &str = "fs";
const VERSION: u16 = 1;

/// Longest state of a backend, in bytes. Ours takes about a hundred for each file that the guest
/// knows, so this is a guest that looked at more than two million without forgetting one; a backend
/// or a saved file that claims more would fill the host's memory.
const MAX_BACKEND_STATE: usize = 256 << 20;

/// What the few bytes around the backend's state take at most.
const ENVELOPE: usize = 16;

/// Time and space for one transfer. A machine is paused meanwhile, and a backend whose storage does
/// not answer must not keep it so for ever.
const LIMITS: TransferLimits = TransferLimits {
    bytes: MAX_BACKEND_STATE,
    time: Duration::from_secs(60),
};

/// What is in the blob.
#[derive(Debug, Serialize, Deserialize)]
struct FsStateV1<'a> {
    /// The backend's state; none when no driver was ever served.
    backend: Option<&'a [u8]>,
}

/// The state of a share that no driver has used.
pub(super) fn unused() -> Result<StateBlob, StateError> {
    StateBlob::encode(KIND, VERSION, &FsStateV1 { backend: None })
}

/// The state of a share that is served by `backend`, which serves no queue now.
pub(super) fn of(id: &DeviceId, backend: Option<&Connection>) -> Result<StateBlob, StateError> {
    let saved = backend
        .filter(|backend| backend.is_alive())
        .ok_or(VhostUserError::Gone)
        .and_then(|backend| backend.save(LIMITS))
        .map_err(|source| StateError::NotSaved {
            id: id.clone(),
            source,
        })?;
    let backend = Some(saved.as_slice());
    StateBlob::encode(KIND, VERSION, &FsStateV1 { backend })
}

/// Lets `backend` go on with the state in `blob`. Returns whether there was one.
pub(super) fn restore(
    id: &DeviceId,
    blob: &StateBlob,
    backend: Option<&Connection>,
) -> Result<Known, StateError> {
    blob.check(KIND, VERSION, MAX_BACKEND_STATE + ENVELOPE)?;
    let damaged = |source| StateError::Decode {
        kind: KIND.to_owned(),
        source,
    };
    let (state, rest) = postcard::take_from_bytes::<FsStateV1<'_>>(&blob.bytes).map_err(damaged)?;
    if !rest.is_empty() {
        return Err(damaged(postcard::Error::DeserializeBadEncoding));
    }
    let Some(state) = state.backend else {
        return Ok(Known::Nothing);
    };
    backend
        .ok_or(VhostUserError::Gone)
        .and_then(|backend| backend.restore(state, LIMITS))
        .map_err(|source| StateError::NotRestored {
            id: id.clone(),
            source,
        })?;
    Ok(Known::Session)
}

/// What a backend has to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// No driver has talked to it.
    Nothing,
    /// What a driver agreed on with it, and what it handed out since.
    Session,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_its_version() {
        // Another layout is another version: saved states of this one are still about.
        let saved = unused().unwrap();
        assert_eq!((saved.version, saved.bytes), (1, vec![0]));
        let backend = Some(&b"ab"[..]);
        let saved = StateBlob::encode(KIND, VERSION, &FsStateV1 { backend }).unwrap();
        assert_eq!((saved.version, saved.bytes), (1, b"\x01\x02ab".to_vec()));
    }
}
