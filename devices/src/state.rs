//! Saved device state: a kind, a version and bytes, with no handle and no identity in it.

use serde::{Deserialize, Serialize};

use crate::device::DeviceId;
use crate::vhost_user::VhostUserError;

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

/// Most bytes a device's own state may take, unless the device has reason to say otherwise.
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
        self.check(kind, version, MAX_STATE_BYTES)?;
        postcard::from_bytes(&self.bytes).map_err(|source| StateError::Decode {
            kind: kind.to_owned(),
            source,
        })
    }

    /// Checks that this is a state of the given kind and version, in at most `limit` bytes.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, kind: &str, version: u16, limit: usize) -> Result<(), StateError> {
        if self.kind != kind || self.version != version || self.bytes.len() > limit {
            return Err(StateError::Foreign {
                kind: self.kind.clone(),
                version: self.version,
                bytes: self.bytes.len(),
                expected: format!("{kind} version {version} in at most {limit} bytes"),
            });
        }
        Ok(())
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
    #[error("Saved state is {kind} version {version} in {bytes} bytes, expected {expected}")]
    Foreign {
        /// Kind found.
        kind: String,
        /// Version found.
        version: u16,
        /// Its length.
        bytes: usize,
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
    /// The process that serves the device did not hand over what it knows.
    #[error(
        "Device {id}: its backend did not hand over its state; those that slotvmm starts \
         (`source = …`) and virtiofsd 1.11 or later can"
    )]
    NotSaved {
        /// The device.
        id: DeviceId,
        /// What became of it.
        #[source]
        source: VhostUserError,
    },
    /// Files of the host are mapped for the guest, and whoever knew which is gone.
    #[error(
        "Device {id}: files are mapped in its window by a backend that has died since, which cannot \
         be saved; mount the share again"
    )]
    Mapped {
        /// The device.
        id: DeviceId,
    },
    /// The process that is to serve the device does not go on with what another one knew.
    #[error(
        "Device {id}: its backend does not go on with the saved state, expected one of the same \
         kind and version as the one that saved it"
    )]
    NotRestored {
        /// The device.
        id: DeviceId,
        /// What became of it.
        #[source]
        source: VhostUserError,
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
