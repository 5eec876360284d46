//! A state whose guest is to become another machine: a file beside the image says so.
//!
//! The file holds a number that is made once. The guest is told of it at every start, and keeps it
//! when it has renewed what tells machines apart: so that happens once, however often the guest is
//! killed before. A copy of the state has the file as well; its guest knows the number, or has still
//! to renew what both would have.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use uuid::Uuid;

use crate::durable;
use crate::error::StoreError;

/// Name of the file.
pub(crate) const FILE: &str = "reset-identity";

/// Most bytes of the file that are read: a number and a line feed.
const MAX: usize = 64;

/// Whether a copy becomes another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It stays the machine that it was copied from.
    Keep,
    /// Its guest renews what tells machines apart when it is booted the first time.
    Reset,
}

/// The number that the guest of an open image is told; nothing if it stays what it is.
pub fn number_of(image: &File) -> Option<Uuid> {
    // Where the image is now, whatever the path was that it was opened by.
    number_at(Path::new(&format!("/proc/self/fd/{}", image.as_raw_fd())))
}

/// The same for an image that a link leads to.
pub fn number_at(link: &Path) -> Option<Uuid> {
    let path = fs::read_link(link).ok()?;
    let text = fs::read_to_string(path.with_file_name(FILE)).ok()?;
    (text.len() <= MAX).then(|| text.trim().parse().ok())?
}

/// Has a state that is being made in `dir`, from one in `source`, do as `identity` says.
pub(crate) fn write(identity: Identity, source: &Path, dir: &Path) -> Result<(), StoreError> {
    let file = dir.join(FILE);
    let text = match identity {
        Identity::Reset => format!("{}\n", Uuid::new_v4()).into_bytes(),
        Identity::Keep => match fs::read(source.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::at("read", &source.join(FILE))(error)),
        },
    };
    durable::write(&file, &text)?;
    durable::inherit_owner(&file, dir)
}
