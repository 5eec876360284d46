//! Saved device state: a kind, a version and bytes, with no handle and no identity in it.

use serde::{Deserialize, Serialize};

/// The saved state of one device. Untrusted when it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBlob {
    /// Which code understands the bytes, such as `blk`.
    pub kind: String,
    /// Version of the layout of the bytes, from 1.
    pub version: u16,
    /// The state, encoded by postcard.
    pub bytes: Vec<u8>,
}

/// Most bytes a device's own state may take.
pub const MAX_STATE_BYTES: usize = 1 << 20;

impl StateBlob {
    /// Encodes `state`.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn encode<T: Serialize>(kind: &str, version: u16, state: &T) -> Result<Self, StateError> {
        let bytes = postcard::to_stdvec(state).map_err(|source| StateError::Encode {
            kind: kind.to_owned(),
            source,
        })?;
        Ok(Self {
            kind: kind.to_owned(),
            version,
            bytes,
        })
    }

    /// Decodes a state of the given kind and version.
    ///
    /// # Errors
    /// When kind or version differ, or the bytes are not such a state.
    pub fn decode<'a, T: Deserialize<'a>>(
        &'a self,
        kind: &str,
        version: u16,
    ) -> Result<T, StateError> {
        if self.kind != kind || self.version != version || self.bytes.len() > MAX_STATE_BYTES {
            return Err(StateError::Foreign {
                kind: self.kind.clone(),
                version: self.version,
                expected: format!("{kind} version {version}"),
            });
        }
        postcard::from_bytes(&self.bytes).map_err(|source| StateError::Decode {
            kind: kind.to_owned(),
            source,
        })
    }
}

/// Why a device's state was not saved or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The device still runs.
    #[error("Device is active; stop it before saving")]
    Active,
    /// The state could not be encoded.
    #[error("Failed to encode the state of a {kind} device")]
    Encode {
        /// Kind of the device.
        kind: String,
        /// What the encoder said.
        #[source]
        source: postcard::Error,
    },
    /// The state is of another kind or version.
    #[error("Saved state is {kind} version {version}, expected {expected}")]
    Foreign {
        /// Kind found.
        kind: String,
        /// Version found.
        version: u16,
        /// What this build reads.
        expected: String,
    },
    /// The bytes are not such a state.
    #[error("Saved state of a {kind} device is damaged")]
    Decode {
        /// Kind of the device.
        kind: String,
        /// What the decoder said.
        #[source]
        source: postcard::Error,
    },
    /// A field contradicts the configuration or guest memory.
    #[error("Saved state of a {kind} device has an impossible {field}")]
    Invalid {
        /// Kind of the device.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
}
