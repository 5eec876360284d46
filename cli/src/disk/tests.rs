//! Images that are fine, that are not, and that are made.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::config::Engine;
use crate::resolve::{Create, Disk, Use};

/// A disk at `path` that is not made when absent.
fn disk(path: PathBuf, usage: Use) -> Disk {
    Disk {
        id: "data".to_owned(),
        position: 1,
        path,
        usage,
        serial: None,
        engine: Engine::Auto,
        discard: true,
        create: None,
    }
}

fn creatable(dir: &Path, template: Option<&Path>, size_mib: Option<u64>) -> Disk {
    let slot_dir = dir.join("slot1");
    let create = Create {
        size_mib,
        template: template.map(Path::to_owned),
        label: "microvm-root".to_owned(),
        directory: Some(slot_dir.clone()),
    };
    Disk {
        create: Some(create),
        ..disk(slot_dir.join("data.img"), Use::Exclusive)
    }
}

fn image(dir: &Path, bytes: usize) -> PathBuf {
    let path = dir.join("image");
    fs::write(&path, vec![7; bytes]).unwrap();
    path
}

/// Everything below `dir`, sorted.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        found.push(path.strip_prefix(dir).unwrap().display().to_string());
        if path.is_dir() {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn a_writable_image_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(image(dir.path(), 1024), Use::Exclusive);
    let first = open(&disk).unwrap();
    match open(&disk).unwrap_err() {
        DiskError::Locked {
            holder: Holder::Process { pid, .. },
            ..
        } => {
            assert_eq!(pid, std::process::id());
        }
        error => panic!("{error}"),
    }
    assert!(matches!(
        inspect(&disk).unwrap(),
        Presence::InUse { bytes: 1024, .. }
    ));
    drop(first);
    assert_eq!(inspect(&disk).unwrap(), Presence::Present { bytes: 1024 });
    open(&disk).unwrap();
}

#[test]
fn a_read_only_image_is_shared_but_not_with_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 512);
    let reader = disk(path.clone(), Use::ReadOnly);
    let (one, _two) = (open(&reader).unwrap(), open(&reader).unwrap());
    assert!(matches!(
        open(&disk(path, Use::Exclusive)),
        Err(DiskError::Locked { .. })
    ));
    let error = std::io::Write::write_all(&mut &one, b"x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EBADF));
}

#[test]
fn what_is_no_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for size in [0, 511, 513] {
        fs::write(at("odd"), vec![0; size]).unwrap();
        let error = open(&disk(at("odd"), Use::Exclusive)).unwrap_err();
        assert!(matches!(error, DiskError::Size { .. }), "{size}: {error}");
    }
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, found) in [
        (dir.path().to_owned(), "a directory"),
        (at("pipe"), "a pipe"),
        ("/dev/null".into(), "a character device"),
    ] {
        match open(&disk(path, Use::Exclusive)).unwrap_err() {
            DiskError::Kind {
                found: reported, ..
            } => assert_eq!(reported, found),
            error => panic!("{error}"),
        }
    }
    let error = open(&disk(at("none"), Use::ReadOnly)).unwrap_err();
    assert!(matches!(error, DiskError::Missing { .. }), "{error}");
    let error = open(&disk(at("odd/none"), Use::ReadOnly)).unwrap_err();
    assert!(matches!(error, DiskError::Missing { .. }), "{error}");
}

#[test]
fn links_are_followed_and_links_to_nothing_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = creatable(dir.path(), None, Some(8));
    fs::create_dir(dir.path().join("slot1")).unwrap();
    symlink("../states/none", &disk.path).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, DiskError::Dangling { .. }), "{error}");
    assert_eq!(files(&dir.path().join("slot1")), ["data.img"]);
    fs::remove_file(&disk.path).unwrap();
    symlink(image(dir.path(), 512), &disk.path).unwrap();
    disk.create = None;
    open(&disk).unwrap();
}

#[test]
fn state_without_an_image_gets_one_where_the_link_leads() {
    let dir = tempfile::tempdir().unwrap();
    let template = image(dir.path(), 4096);
    let disk = creatable(dir.path(), Some(&template), None);
    fs::create_dir(dir.path().join("slot1")).unwrap();
    fs::create_dir_all(dir.path().join("states/web")).unwrap();
    symlink("../states/web/data.img", &disk.path).unwrap();
    assert_eq!(inspect(&disk).unwrap(), Presence::WillBeCreated);
    open(&disk).unwrap();
    assert_eq!(files(&dir.path().join("states/web")), ["data.img"]);
    assert!(fs::symlink_metadata(&disk.path).unwrap().is_symlink());
}

#[test]
fn a_new_image_is_sparse_labelled_private_and_locked() {
    if mkfs_program().is_none() {
        eprintln!("skipped: mkfs.ext4 is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = creatable(dir.path(), None, Some(65536));
    assert_eq!(inspect(&disk).unwrap(), Presence::WillBeCreated);
    let file = open(&disk).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), 64 << 30);
    assert!(
        metadata.blocks() * 512 < 64 << 20,
        "{} KiB",
        metadata.blocks() / 2
    );
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(files(&dir.path().join("slot1")), ["data.img"]);
    assert!(matches!(open(&disk), Err(DiskError::Locked { .. })));
    // ext4: magic 0xef53 and the label, at their offsets in the superblock at byte 1024.
    let mut superblock = [0; 1024];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut superblock, 1024).unwrap();
    assert_eq!(superblock[0x38..0x3a], [0x53, 0xef]);
    assert_eq!(&superblock[0x78..0x88], b"microvm-root\0\0\0\0");
    drop(file);
    let again = open(&disk).unwrap().metadata().unwrap();
    assert_eq!(again.ino(), metadata.ino());
}

#[test]
fn a_template_is_copied_with_its_holes_and_grown() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("template");
    let file = fs::File::create(&template).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 32 << 20).unwrap();
    let disk = creatable(dir.path(), Some(&template), Some(128));
    let image = open(&disk).unwrap();
    assert_eq!(image.metadata().unwrap().len(), 128 << 20);
    assert!(image.metadata().unwrap().blocks() * 512 < 1 << 20);
    let mut found = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&image, &mut found, 32 << 20).unwrap();
    assert_eq!(&found, b"data");
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("image");
    fs::write(&template, vec![1; 2 << 20]).unwrap();

    let shrunk = creatable(dir.path(), Some(&template), Some(1));
    assert!(matches!(
        open(&shrunk),
        Err(DiskError::TemplateTooLarge { have_mib: 2, .. })
    ));

    let gone = creatable(dir.path(), Some(&dir.path().join("none")), None);
    assert!(matches!(open(&gone), Err(DiskError::Host { .. })));

    // Larger than any file: fails after the directory and the temporary file were made.
    let huge = creatable(dir.path(), Some(&template), Some(u64::MAX));
    assert!(matches!(open(&huge), Err(DiskError::Create { .. })));
    assert_eq!(files(dir.path()), ["image"]);
}

#[test]
fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let disk = creatable(&dir.path().join("state"), None, Some(8));
    match open(&disk).unwrap_err() {
        DiskError::NoDirectory { directory, .. } => assert_eq!(directory, dir.path().join("state")),
        error => panic!("{error}"),
    }
    assert!(files(dir.path()).is_empty());
}

#[test]
fn what_a_killed_process_left_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let template = image(dir.path(), 1024);
    let disk = creatable(dir.path(), Some(&template), None);
    fs::create_dir(dir.path().join("slot1")).unwrap();
    let left = dir.path().join("slot1/.data.img.new");
    fs::write(&left, vec![9; 4096]).unwrap();
    let image = open(&disk).unwrap();
    assert_eq!(image.metadata().unwrap().len(), 1024);
    assert_eq!(files(&dir.path().join("slot1")), ["data.img"]);
}

#[test]
fn an_image_that_another_process_is_making_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let template = image(dir.path(), 1024);
    let mut disk = creatable(dir.path(), Some(&template), None);
    fs::create_dir(dir.path().join("slot1")).unwrap();
    disk.path = dir.path().join("slot1/.data.img.new");
    fs::write(&disk.path, vec![9; 512]).unwrap();
    let _other = open(&disk).unwrap();
    disk.path = dir.path().join("slot1/data.img");
    assert!(matches!(open(&disk), Err(DiskError::Locked { .. })));
    assert_eq!(files(&dir.path().join("slot1")), [".data.img.new"]);
}
