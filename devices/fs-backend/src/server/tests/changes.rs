//! The share changes on the host while a guest uses it.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// Makes the server forget what is open, as time does.
fn close_all(guest: &Guest) {
    let state = guest.server.save().unwrap();
    guest.server.restore(&state).unwrap();
}

#[test]
fn a_path_that_is_added_is_found_and_soon() {
    let guest = Guest::new();
    let absent = guest.entry(ROOT_ID, b"new").unwrap();
    assert_eq!((absent.nodeid, absent.entry_valid), (0, 1));
    std::fs::create_dir(guest.host("new")).unwrap();
    assert!(guest.lookup(ROOT_ID, b"new").is_ok());
    let listed = guest.list(Opcode::Readdir, ROOT_ID, 4096).unwrap();
    assert!(listed.iter().any(|entry| entry.name == b"new"));
    std::fs::create_dir(guest.host("newer")).unwrap();
    let listed = guest.list(Opcode::Readdir, ROOT_ID, 4096).unwrap();
    assert!(listed.iter().any(|entry| entry.name == b"newer"));
}

#[test]
fn what_is_new_is_kept_for_long_once_it_is_registered() {
    let guest = Guest::new();
    std::fs::create_dir(guest.host("path")).unwrap();
    let file = std::fs::File::create(guest.host("path/file")).unwrap();
    let path = guest.walk("path").unwrap();
    let kept = |name: &[u8]| {
        let entry = guest.entry(path, name).unwrap();
        (entry.entry_valid, entry.attr_valid)
    };
    assert_eq!(kept(b"file"), (1, 1));
    assert_eq!(kept(b"other").0, 1);
    let registered = UNIX_EPOCH + Duration::from_secs(1);
    file.set_modified(registered).unwrap();
    assert_eq!(kept(b"file"), (24 * 60 * 60, 24 * 60 * 60));
    // The directory is still being filled.
    assert_eq!(kept(b"other").0, 1);
    let directory = std::fs::File::open(guest.host("path")).unwrap();
    directory.set_modified(registered).unwrap();
    assert_eq!(kept(b"other").0, 24 * 60 * 60);
}

#[test]
fn a_path_that_is_removed_is_gone() {
    let guest = Guest::new();
    std::fs::create_dir(guest.host("path")).unwrap();
    std::fs::write(guest.host("path/file"), "data").unwrap();
    let path = guest.walk("path").unwrap();
    let file = guest.walk("path/file").unwrap();
    std::fs::remove_dir_all(guest.host("path")).unwrap();
    assert_eq!(guest.lookup(ROOT_ID, b"path"), Err(Errno::NOENT));
    assert_eq!(guest.lookup(path, b"file"), Err(Errno::NOENT));
    close_all(&guest);
    assert_eq!(guest.lookup(path, b"file"), Err(Errno::STALE));
    assert_eq!(guest.read(file, 0, 10), Err(Errno::STALE));
    assert_eq!(guest.attr(file).map(|_| ()), Err(Errno::STALE));
}

#[test]
fn a_path_that_is_replaced_is_another_inode() {
    let guest = Guest::new();
    std::fs::write(guest.host("file"), "first").unwrap();
    let first = guest.lookup(ROOT_ID, b"file").unwrap();
    // The file system gives the same inode number again, more often than not.
    for round in 0..50 {
        let data = format!("round {round}");
        std::fs::remove_file(guest.host("file")).unwrap();
        std::fs::write(guest.host("file"), &data).unwrap();
        assert_eq!(guest.read(first, 0, 100), Err(Errno::STALE));
        let now = guest.lookup(ROOT_ID, b"file").unwrap();
        assert_ne!(now, first);
        assert_eq!(guest.read(now, 0, 100).unwrap(), data.as_bytes());
        guest.forget(now, 1);
    }
}

#[test]
fn a_file_in_use_is_read_to_its_end_after_it_is_removed() {
    let guest = Guest::new();
    std::fs::write(guest.host("file"), "data").unwrap();
    let file = guest.lookup(ROOT_ID, b"file").unwrap();
    assert_eq!(guest.read(file, 0, 2).unwrap(), b"da");
    std::fs::remove_file(guest.host("file")).unwrap();
    assert_eq!(guest.read(file, 2, 2).unwrap(), b"ta");
    assert_eq!(guest.lookup(ROOT_ID, b"file"), Err(Errno::NOENT));
}

#[test]
fn a_path_that_moves_is_found_at_its_new_place() {
    let guest = Guest::new();
    std::fs::create_dir(guest.host("a")).unwrap();
    std::fs::create_dir(guest.host("b")).unwrap();
    std::fs::write(guest.host("a/file"), "data").unwrap();
    let file = guest.walk("a/file").unwrap();
    std::fs::rename(guest.host("a/file"), guest.host("b/other")).unwrap();
    assert_eq!(guest.read(file, 0, 10), Err(Errno::STALE));
    assert_eq!(guest.walk("b/other").unwrap(), file);
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"data");
}

#[test]
fn directories_that_swap_places_make_no_loop() {
    let guest = Guest::new();
    std::fs::create_dir_all(guest.host("a/b")).unwrap();
    let (a, b) = (guest.walk("a").unwrap(), guest.walk("a/b").unwrap());
    std::fs::rename(guest.host("a/b"), guest.host("b")).unwrap();
    std::fs::rename(guest.host("a"), guest.host("b/a")).unwrap();
    close_all(&guest);
    // The guest learns of the second move alone: each directory now lies in the other.
    let state = guest.server.save().unwrap();
    let _ = guest.lookup(b, b"a");
    guest.server.restore(&state).unwrap();
    assert_eq!(guest.attr(b).map(|_| ()), Err(Errno::STALE));
    assert_eq!(guest.walk("b/a").unwrap(), a);
    assert_eq!(guest.lookup(b, b"a").unwrap(), a);
}

#[test]
fn what_changed_just_now_is_kept_for_a_second_only() {
    let guest = Guest::new();
    std::fs::create_dir(guest.host("fresh")).unwrap();
    let entry = guest.entry(ROOT_ID, b"fresh").unwrap();
    assert_eq!((entry.entry_valid, entry.attr_valid), (1, 1));
    let absent = guest.entry(entry.nodeid, b"none").unwrap();
    assert_eq!((absent.nodeid, absent.entry_valid), (0, 1));
    // What lies in the operating system has been there for longer.
    let share = Share::open(Path::new("/usr/share")).unwrap();
    let tree = Tree::new(share, Budget::of_limit(Some(1024))).unwrap();
    let guest = Guest {
        server: Server::new(tree, Policy::default()),
        ..guest
    };
    let entry = guest.entry(ROOT_ID, b"doc").unwrap();
    assert_eq!((entry.entry_valid, entry.attr_valid), (86400, 86400));
    let absent = guest
        .entry(entry.nodeid, b"there is no such thing")
        .unwrap();
    assert_eq!((absent.nodeid, absent.entry_valid), (0, 86400));
    assert_eq!(guest.attr(ROOT_ID).unwrap().attr_valid, 1);
}
