//! Writes that survive a crash: content first, then the name, then the directory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::StoreError;
use crate::fault;
use crate::layout::NEW;

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    fault::point("before a directory is synced");
    let sync = || File::open(dir)?.sync_all();
    sync().map_err(StoreError::at("write to disk", dir))
}

/// Renames, and makes both directories durable. Replaces what is there.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fault::point("before a rename");
    fs::rename(from, to).map_err(StoreError::at("move into place", to))?;
    sync_parents(from, to)
}

/// Renames as [`rename`] does, and fails when something is there.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<(), StoreError> {
    fault::point("before a rename that replaces nothing");
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
        .map_err(|errno| StoreError::at("move into place", to)(errno.into()))?;
    sync_parents(from, to)
}

fn sync_parents(from: &Path, to: &Path) -> Result<(), StoreError> {
    fault::point("after a rename");
    if let Some(parent) = to.parent() {
        sync_dir(parent)?;
    }
    match from.parent() {
        Some(parent) if Some(parent) != to.parent() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Replaces a file: readers see the old content or the new one.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!("{NEW}{name}"));
    let written = File::create(&new).and_then(|mut file| {
        fault::point("a file is empty");
        file.write_all(content)?;
        fault::point("a file is not synced");
        file.sync_all()
    });
    let written = written
        .map_err(StoreError::at("write", path))
        .and_then(|()| rename(&new, path));
    if written.is_err() {
        // The error tells what went wrong; a file that stays is found by the next look.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Removes a file or link and makes that durable; fine if it is gone.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    fault::point("before a file is removed");
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::at("remove", path)(error)),
        Ok(()) => path.parent().map_or(Ok(()), sync_dir),
    }
}

/// Removes a directory and all in it; fine if it is gone.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    fault::point("before a tree is removed");
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(StoreError::at("remove", path)),
    }
}

/// Makes a directory that may be there already, with the owner of the one above it.
pub(crate) fn ensure_dir(path: &Path) -> Result<(), StoreError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(StoreError::at("create directory", path))?,
    }
    fault::point("after a directory is made");
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    inherit_owner(path, parent)?;
    sync_dir(parent)
}

/// Gives `path` the owner of `like`: root works on a store that belongs to the user of the slots.
pub(crate) fn inherit_owner(path: &Path, like: &Path) -> Result<(), StoreError> {
    let wanted = fs::metadata(like).map_err(StoreError::at("inspect", like))?;
    let have = fs::symlink_metadata(path).map_err(StoreError::at("inspect", path))?;
    if (have.uid(), have.gid()) == (wanted.uid(), wanted.gid()) {
        return Ok(());
    }
    match std::os::unix::fs::lchown(path, Some(wanted.uid()), Some(wanted.gid())) {
        // Whoever is not root works in a store of their own, or shares it by its group.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.map_err(StoreError::at("change the owner of", path)),
    }
}

/// The names in a directory; none if it is absent.
pub(crate) fn entries(dir: &Path) -> Result<Vec<String>, StoreError> {
    let reader = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(StoreError::at("read directory", dir))?,
    };
    let mut names = Vec::new();
    for entry in reader {
        let entry = entry.map_err(StoreError::at("read directory", dir))?;
        // A name that is not text is none of ours.
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
