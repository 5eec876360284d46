//! Opens an image: exists, is an image, may be opened, is ours.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::lock::Locking;
use super::{DiskError, Holder, create, lock};
use crate::resolve::{Disk, Use};

/// The unit of a disk's size (virtio 1.2 §5.2.4).
const SECTOR: u64 = 512;

/// Opens and locks a disk's image, and makes it first when that is configured and it is absent.
///
/// # Errors
/// When the image cannot be used; see [`DiskError`]. Nothing new is left behind then.
pub(crate) fn open(disk: &Disk) -> Result<File, DiskError> {
    let file = match (open_existing(disk)?, &disk.create) {
        (Some(file), _) => file,
        (None, Some(create)) => create::create(&at_target(disk), create)?,
        (None, None) => {
            return Err(DiskError::Missing {
                id: disk.id.clone(),
                path: disk.path.clone(),
            });
        }
    };
    check_size(disk, &file)?;
    Ok(file)
}

/// What a look at an image tells, without locking or making anything.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum Presence {
    /// It is there and free.
    Present {
        /// Its size.
        bytes: u64,
    },
    /// It is absent and will be made.
    WillBeCreated,
    /// Someone uses it.
    InUse {
        /// Its size.
        bytes: u64,
        /// Who uses it.
        holder: String,
    },
}

/// Looks at a disk's image; for plans and checks.
///
/// # Errors
/// When [`open`] would fail for a reason other than a lock.
pub(crate) fn inspect(disk: &Disk) -> Result<Presence, DiskError> {
    let Some(file) = open_unlocked(disk)? else {
        return match &disk.create {
            Some(create) => {
                create::check(&at_target(disk), create).map(|()| Presence::WillBeCreated)
            }
            None => Err(DiskError::Missing {
                id: disk.id.clone(),
                path: disk.path.clone(),
            }),
        };
    };
    let bytes = check_size(disk, &file)?;
    // A file system that does not say is not in use as far as anyone can tell.
    if lock::is_busy(&file, disk.usage).unwrap_or(false) {
        return Ok(Presence::InUse {
            bytes,
            holder: Holder::find(&file).to_string(),
        });
    }
    Ok(Presence::Present { bytes })
}

fn open_existing(disk: &Disk) -> Result<Option<File>, DiskError> {
    let Some(file) = open_unlocked(disk)? else {
        return Ok(None);
    };
    take_lock(disk, &file)?;
    Ok(Some(file))
}

/// Opens the image, or nothing when it is absent. Checks what it is before opening it: to open a
/// pipe would wait, and to open a device may do things.
fn open_unlocked(disk: &Disk) -> Result<Option<File>, DiskError> {
    match std::fs::metadata(&disk.path) {
        Ok(metadata) => check_kind(disk, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return absent(disk),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return absent(disk),
        Err(error) => return Err(refused(disk, error)),
    }
    let mut options = OpenOptions::new();
    options.read(true).write(disk.usage == Use::Exclusive);
    let file = options
        .open(&disk.path)
        .map_err(|error| refused(disk, error))?;
    let metadata = file
        .metadata()
        .map_err(|error| host(disk, "inspect", error))?;
    check_kind(disk, &metadata)?;
    Ok(Some(file))
}

/// Whether an absent image can be made. A link to nothing is an assignment gone wrong, unless it
/// leads to the image that a state does not have yet.
fn absent(disk: &Disk) -> Result<Option<File>, DiskError> {
    let Ok(target) = std::fs::read_link(&disk.path) else {
        return Ok(None);
    };
    let place = parent(&disk.path).join(&target);
    let is_state = target.ends_with("data.img") && parent(&place).is_dir();
    if is_state && disk.create.is_some() {
        return Ok(None);
    }
    Err(DiskError::Dangling {
        id: disk.id.clone(),
        path: disk.path.clone(),
        target,
    })
}

/// The same disk with its image where the link leads: what is made belongs to the state.
fn at_target(disk: &Disk) -> Disk {
    let path = match std::fs::read_link(&disk.path) {
        Ok(target) => parent(&disk.path).join(target),
        Err(_) => disk.path.clone(),
    };
    Disk {
        path,
        ..disk.clone()
    }
}

pub(super) fn check_kind(disk: &Disk, metadata: &Metadata) -> Result<(), DiskError> {
    let kind = metadata.file_type();
    let found = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a character device"
    };
    Err(DiskError::Kind {
        id: disk.id.clone(),
        path: disk.path.clone(),
        found,
    })
}

/// Locks the image for the disk's use.
pub(super) fn take_lock(disk: &Disk, file: &File) -> Result<(), DiskError> {
    match lock::lock(file, disk.usage).map_err(|error| host(disk, "lock", error))? {
        Locking::Held => Ok(()),
        Locking::Busy => Err(DiskError::Locked {
            id: disk.id.clone(),
            path: disk.path.clone(),
            holder: Holder::find(file),
        }),
        // Nobody writes to a read-only image through us, so a missing lock hurts nobody.
        Locking::Unsupported(_) if disk.usage == Use::ReadOnly => Ok(()),
        Locking::Unsupported(source) => Err(DiskError::NoLocks {
            id: disk.id.clone(),
            path: disk.path.clone(),
            source,
        }),
    }
}

/// The size in bytes; of a block device as well, whose metadata does not have it.
fn check_size(disk: &Disk, mut file: &File) -> Result<u64, DiskError> {
    let bytes = file
        .seek(SeekFrom::End(0))
        .map_err(|error| host(disk, "measure", error))?;
    file.rewind()
        .map_err(|error| host(disk, "measure", error))?;
    if bytes == 0 || bytes % SECTOR != 0 {
        return Err(DiskError::Size {
            id: disk.id.clone(),
            path: disk.path.clone(),
            bytes,
        });
    }
    Ok(bytes)
}

fn refused(disk: &Disk, source: io::Error) -> DiskError {
    let denied = matches!(
        source.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    );
    if !denied {
        return host(disk, "open", source);
    }
    let mode = match disk.usage {
        Use::ReadOnly => "reading",
        Use::Exclusive => "reading and writing",
    };
    DiskError::Denied {
        id: disk.id.clone(),
        path: disk.path.clone(),
        mode,
        source,
    }
}

pub(super) fn host(disk: &Disk, action: &'static str, source: io::Error) -> DiskError {
    DiskError::Host {
        id: disk.id.clone(),
        path: disk.path.clone(),
        action,
        source,
    }
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
