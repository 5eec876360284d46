//! Copies a template into a new image: shared blocks where the file system can, else data without
//! the holes.

use std::fs::File;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::SeekFrom;
use store::copy::{Method, copy_image};

use super::DiskError;
use super::create::{bytes, failed};
use super::open::check_kind;
use crate::resolve::{Create, Disk};

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
    let progress = progress_bar(length);
    copy_image(&from, image, Method::Auto, &|offset| {
        progress.set_position(offset)
    })
    .map_err(|error| failed(disk, "copy the template", error))?;
    progress.finish_and_clear();
    if let Some(size) = create.size_mib {
        image
            .set_len(bytes(size))
            .map_err(|error| failed(disk, "reserve its size", error))?;
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
