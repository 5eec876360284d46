//! Images that are read or taken away: opened with the lock that this needs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::copy::{Copied, Method, copy_image};
use crate::durable;
use crate::error::StoreError;
use crate::fault;
use crate::holder::Holder;
use crate::lock::{self, Access, Locking};

/// Told of the offset that a copy has reached, and of the image's length.
pub type Progress<'a> = &'a dyn Fn(u64, u64);

/// Opens an image for reading and keeps writers away while it is open; nothing if it is absent.
pub(crate) fn open_shared(path: &Path) -> Result<Option<File>, StoreError> {
    open_locked(path, OpenOptions::new().read(true), Access::Shared)
}

/// Keeps everybody away from an image while it is open; nothing if it is absent.
pub(crate) fn claim(path: &Path) -> Result<Option<File>, StoreError> {
    open_locked(
        path,
        OpenOptions::new().read(true).write(true),
        Access::Exclusive,
    )
}

fn open_locked(
    path: &Path,
    options: &OpenOptions,
    access: Access,
) -> Result<Option<File>, StoreError> {
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(StoreError::at("open", path))?,
    };
    match lock::lock(&file, access).map_err(StoreError::at("lock", path))? {
        Locking::Held => Ok(Some(file)),
        Locking::Busy => Err(in_use(path, &file)),
        Locking::Unsupported(source) => Err(StoreError::at("lock", path)(source)),
    }
}

/// Fails when anybody reads or writes the image. The store is locked, so no command of ours begins
/// to.
pub(crate) fn require_unused(path: &Path) -> Result<(), StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(StoreError::at("open", path))?,
    };
    match lock::is_used(&file, Access::Exclusive) {
        Ok(true) => Err(in_use(path, &file)),
        Ok(false) => Ok(()),
        Err(source) => Err(StoreError::at("inspect the lock of", path)(source)),
    }
}

/// Whether a writer uses the image.
pub(crate) fn is_held(path: &Path) -> Result<bool, StoreError> {
    let file = File::open(path).map_err(StoreError::at("open", path))?;
    lock::is_busy(&file, Access::Shared).map_err(StoreError::at("inspect the lock of", path))
}

fn in_use(path: &Path, file: &File) -> StoreError {
    StoreError::InUse {
        path: path.to_owned(),
        holder: Holder::find(file),
    }
}

/// Copies the open image `from` to the open and empty file `to`.
pub(crate) fn copy(
    (from, to, to_path): (&File, &File, &Path),
    method: Method,
    progress: Progress<'_>,
) -> Result<Copied, StoreError> {
    let length = from.metadata().map(|metadata| metadata.len());
    let length = length.map_err(StoreError::at("inspect the source of", to_path))?;
    copy_image(from, to, method, &|at| progress(at, length))
        .map_err(StoreError::at("fill", to_path))
}

/// Makes a durable copy of `from` with the owner of `like`, writable by that owner alone.
pub(crate) fn copy_new(
    from: &File,
    (path, like): (&Path, &Path),
    method: Method,
    progress: Progress<'_>,
) -> Result<Copied, StoreError> {
    let to = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::at("create", path))?;
    fault::point("a new image is empty");
    let copied = copy((from, &to, path), method, progress)?;
    fault::point("a new image is filled");
    durable::inherit_owner(path, like)?;
    to.sync_all()
        .map_err(StoreError::at("write to disk", path))?;
    Ok(copied)
}

/// Makes an image that belongs to nobody's state any more read-only.
pub(crate) fn protect(path: &Path) -> Result<(), StoreError> {
    match fs::set_permissions(
        path,
        fs::Permissions::from_mode(crate::snapshot::IMAGE_MODE),
    ) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(StoreError::at("protect", path)),
    }
}
