//! Names of states and snapshots.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name in bytes. A data set of ZFS has room for 255, with the names of its parents.
const MAX_NAME: usize = 64;

/// A name of a state, a snapshot or a slot: letters, digits, `.`, `_` and `-`, a letter or digit
/// first. Safe as a file name and as part of a ZFS data set's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let starts_well = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if starts_well && text.len() <= MAX_NAME && text.bytes().all(plain) {
            return Ok(Self(text));
        }
        Err(NameError { name: text })
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_owned().try_into()
    }
}

/// Why a name was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "\"{name}\" is not a name of a state or snapshot: expected 1 to {MAX_NAME} letters, digits, dots, \
     underscores and hyphens, a letter or digit first"
)]
pub struct NameError {
    name: String,
}

/// A snapshot as it is typed: `state@snapshot`, or `snapshot` alone where only one state has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRef {
    /// The state, if it was named.
    pub state: Option<Name>,
    /// The snapshot.
    pub snapshot: Name,
}

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            Some(state) => write!(f, "{state}@{}", self.snapshot),
            None => self.snapshot.fmt(f),
        }
    }
}

impl FromStr for SnapshotRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Ok(match text.split_once('@') {
            Some((state, snapshot)) => Self {
                state: Some(state.parse()?),
                snapshot: snapshot.parse()?,
            },
            None => Self {
                state: None,
                snapshot: text.parse()?,
            },
        })
    }
}
