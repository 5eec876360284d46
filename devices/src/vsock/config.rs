//! What a socket device is configured to be.

use std::fmt;

use crate::device::DeviceId;
use crate::registry::Position;

/// A virtio socket device.
#[derive(Debug, Clone)]
pub struct VsockConfig {
    /// Name within the machine.
    pub id: DeviceId,
    /// Place on the machine.
    pub position: Position,
    /// The guest's address.
    pub cid: Cid,
}

/// Address of a guest (§5.10.4): 3 to 4294967294. It means nothing outside of its own machine, so
/// that two machines may have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cid(u32);

/// A number that is no guest's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("CID {0} is reserved, expected 3 to 4294967294")]
pub struct CidError(pub u64);

impl Cid {
    /// Checks a number.
    ///
    /// # Errors
    /// When it is reserved (0 to 2 and 4294967295) or too large.
    pub fn new(cid: u64) -> Result<Self, CidError> {
        match u32::try_from(cid) {
            Ok(number) if (3..u32::MAX).contains(&number) => Ok(Self(number)),
            _ => Err(CidError(cid)),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
