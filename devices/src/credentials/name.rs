//! What a credential can be called: the rule of systemd, which has to take the name.

use std::fmt;
use std::str::FromStr;

/// Longest name in bytes: that of a file (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;

/// A credential's name: 1 to [`MAX_NAME_BYTES`] printable ASCII characters without `/` and `:`,
/// neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Text that no credential can be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Credential name {name:?} is not usable: expected 1 to {MAX_NAME_BYTES} printable ASCII \
     characters without slash and colon"
)]
pub struct NameError {
    name: String,
}

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len()) && text != "." && text != "..";
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'/' && byte != b':';
        if fits && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            name: text.to_owned(),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
