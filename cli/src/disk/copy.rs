//! Copies a template into a new image: shared blocks where the file system can, else data without
//! the holes.

use std::fs::File;
use std::io;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::DiskError;
use super::create::{bytes, failed};
use super::open::check_kind;
use crate::resolve::{Create, Disk};

/// Most bytes copied between two looks at the progress bar.
const CHUNK: u64 = 16 << 20;

/// Opens the template and checks that it fits.
///
/// # Errors
/// When it cannot be read, is no image, or is larger than the size that was asked for.
pub(super) fn open_template(
    disk: &Disk,
    create: &Create,
    template: &Path,
) -> Result<(File, u64), DiskError> {
    let unreadable = |source| DiskError::Host {
        id: disk.id.clone(),
        path: template.to_owned(),
        action: "open the template",
        source,
    };
    let of_template = Disk {
        path: template.to_owned(),
        ..disk.clone()
    };
    let metadata = std::fs::metadata(template).map_err(unreadable)?;
    check_kind(&of_template, &metadata)?;
    let file = File::open(template).map_err(unreadable)?;
    let length = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|e| unreadable(e.into()))?;
    if length == 0 || length % 512 != 0 {
        return Err(DiskError::Size {
            id: disk.id.clone(),
            path: of_template.path,
            bytes: length,
        });
    }
    match create.size_mib {
        Some(want_mib) if bytes(want_mib) < length => Err(DiskError::TemplateTooLarge {
            id: disk.id.clone(),
            template: template.to_owned(),
            have_mib: length.div_ceil(1 << 20),
            want_mib,
        }),
        _ => Ok((file, length)),
    }
}

/// Copies the template, and makes the image larger when a larger size was asked for; the guest
/// grows its file system itself.
///
/// # Errors
/// When reading, writing or space fails.
pub(super) fn copy_template(
    disk: &Disk,
    create: &Create,
    template: &Path,
    image: &File,
) -> Result<(), DiskError> {
    let (from, length) = open_template(disk, create, template)?;
    if rustix::fs::ioctl_ficlone(image, &from).is_err() {
        image
            .set_len(length)
            .map_err(|error| failed(disk, "reserve its size", error))?;
        copy_data(&from, image, length)
            .map_err(|error| failed(disk, "copy the template", error))?;
    }
    if let Some(size) = create.size_mib {
        image
            .set_len(bytes(size))
            .map_err(|error| failed(disk, "reserve its size", error))?;
    }
    Ok(())
}

/// Copies what holds data and leaves holes as holes.
fn copy_data(from: &File, to: &File, length: u64) -> io::Result<()> {
    let progress = progress_bar(length);
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, length)? {
        copy_range(from, to, (start, end), &progress)?;
        at = end;
    }
    progress.finish_and_clear();
    Ok(())
}

/// The next range of data at or after `at`. A file system without holes is all data.
fn next_data(from: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, length))),
        Err(errno) => return Err(errno.into()),
    };
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(length))))
}

fn copy_range(
    from: &File,
    to: &File,
    (start, end): (u64, u64),
    progress: &ProgressBar,
) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;

    let (mut read_at, mut write_at) = (start, start);
    while write_at < end {
        let wanted = usize::try_from((end - write_at).min(CHUNK)).unwrap_or(usize::MAX);
        let copied =
            rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), wanted);
        match copied {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => progress.set_position(write_at),
            Err(Errno::INTR) => {}
            // Old kernels and some pairs of file systems cannot; then it goes through memory.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let mut buffer = vec![0; wanted.min(1 << 20)];
                from.read_exact_at(&mut buffer, read_at)?;
                to.write_all_at(&buffer, write_at)?;
                let count = u64::try_from(buffer.len()).unwrap_or_default();
                read_at = read_at.saturating_add(count);
                write_at = write_at.saturating_add(count);
                progress.set_position(write_at);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn progress_bar(length: u64) -> ProgressBar {
    let template = "Copying the template {wide_bar} {bytes}/{total_bytes} {eta}";
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
