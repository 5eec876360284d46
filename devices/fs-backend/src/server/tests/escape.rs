//! Ways out of the share, and ways to confuse the server, all refused.

use super::*;

#[test]
fn no_name_leads_out() {
    let guest = Guest::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::fs::create_dir(guest.host("d")).unwrap();
    let d = guest.lookup(ROOT_ID, b"d").unwrap();
    let absolute = outside.path().as_os_str().as_bytes();
    let names: [&[u8]; 9] = [
        b"",
        b".",
        b"..",
        b"../",
        b"../..",
        b"d/..",
        b"/",
        absolute,
        b"/proc/self/root",
    ];
    for node in [ROOT_ID, d] {
        for name in names {
            assert_eq!(guest.lookup(node, name), Err(Errno::INVAL), "{name:?}");
        }
        assert_eq!(guest.lookup(node, &[b'a'; 256]), Err(Errno::NAMETOOLONG));
        let reply = guest.ask(Opcode::Lookup, node, b"a\0b\0");
        assert_eq!(reply, Err(Errno::INVAL));
    }
}

#[test]
fn links_are_shown_and_not_followed() {
    let guest = Guest::new();
    std::os::unix::fs::symlink("/etc", guest.host("out")).unwrap();
    std::os::unix::fs::symlink("..", guest.host("up")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", guest.host("magic")).unwrap();
    for name in ["out", "up", "magic"] {
        let entry = guest.entry(ROOT_ID, name.as_bytes()).unwrap();
        assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        let link = entry.nodeid;
        assert_eq!(guest.lookup(link, b"passwd"), Err(Errno::NOTDIR));
        assert_eq!(guest.read(link, 0, 100), Err(Errno::INVAL));
        let listed = guest.list(Opcode::Readdir, link, 4096);
        assert_eq!(listed, Err(Errno::NOTDIR));
    }
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let guest = Guest::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "secret").unwrap();
    std::fs::create_dir(guest.host("d")).unwrap();
    std::fs::write(guest.host("d/file"), "open").unwrap();
    let d = guest.walk("d").unwrap();
    let file = guest.walk("d/file").unwrap();
    // A new session forgets what is open, so restore what the guest holds without descriptors.
    let state = guest.server.save().unwrap();
    guest.server.restore(&state).unwrap();
    std::fs::rename(guest.host("d"), guest.host("was")).unwrap();
    std::os::unix::fs::symlink(outside.path(), guest.host("d")).unwrap();
    assert_eq!(guest.read(file, 0, 100), Err(Errno::STALE));
    assert_eq!(guest.lookup(d, b"file"), Err(Errno::STALE));
    assert_eq!(guest.attr(file).map(|_| ()), Err(Errno::STALE));
}

#[test]
fn forged_ids_mean_nothing() {
    let guest = Guest::new();
    std::fs::write(guest.host("file"), "data").unwrap();
    let file = guest.lookup(ROOT_ID, b"file").unwrap();
    let mut forged = vec![0, 2, 3, u64::MAX, u64::from(u32::MAX), 1 << 32, 1 << 63];
    forged.extend(
        (0..64)
            .map(|bit| file ^ 1 << bit)
            .filter(|&node| node != ROOT_ID),
    );
    for node in forged {
        for &opcode in Opcode::ALL {
            let body: &[u8] = match opcode {
                Opcode::Lookup => b"file\0",
                Opcode::Getattr | Opcode::Readlink => b"",
                Opcode::Read | Opcode::Readdir | Opcode::Readdirplus => {
                    &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
                }
                _ => continue,
            };
            let body = [body, &[0; 20][..if body.len() == 20 { 20 } else { 0 }]].concat();
            let reply = guest.ask(opcode, node, &body);
            assert_eq!(reply, Err(Errno::STALE), "{opcode:?} of {node:#x}");
        }
        guest.forget(node, u64::MAX);
    }
    assert_eq!(guest.read(file, 0, 4).unwrap(), b"data");
}

#[test]
fn forged_handles_change_nothing() {
    let guest = Guest::new();
    std::fs::write(guest.host("a"), "data of a").unwrap();
    let a = guest.lookup(ROOT_ID, b"a").unwrap();
    for fh in [0, 1, 3, 1000, u64::MAX] {
        let body = ReadIn {
            fh,
            ..read_in(0, 100)
        };
        let data = guest.ask(Opcode::Read, a, body.as_bytes()).unwrap();
        assert_eq!(data, b"data of a");
    }
}

#[test]
fn huge_sizes_and_offsets_are_bounded() {
    let guest = Guest::new();
    std::fs::write(guest.host("file"), "data").unwrap();
    let file = guest.lookup(ROOT_ID, b"file").unwrap();
    assert_eq!(guest.read(file, 0, u32::MAX).unwrap(), b"data");
    assert_eq!(guest.read(file, u64::MAX >> 1, 16), Ok(Vec::new()));
    assert_eq!(guest.read(file, u64::MAX, 16), Err(Errno::INVAL));
    let listed = guest.ask(Opcode::Readdir, ROOT_ID, read_in(0, u32::MAX).as_bytes());
    assert!(listed.unwrap().len() <= MAX_READ);
    // Whatever the host makes of it.
    for offset in [1, 12345, u64::MAX, 1 << 63] {
        let _ = guest.ask(Opcode::Readdir, ROOT_ID, read_in(offset, 4096).as_bytes());
    }
    guest.forget(file, u64::MAX);
}

#[test]
fn special_files_are_shown_and_never_opened() {
    let guest = Guest::new();
    let mode = rustix::fs::Mode::RUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, guest.host("pipe"), kind, mode, 0).unwrap();
    let entry = guest.entry(ROOT_ID, b"pipe").unwrap();
    assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFIFO);
    // Opening it would wait for a writer.
    assert_eq!(guest.read(entry.nodeid, 0, 1), Err(Errno::INVAL));
}

#[test]
fn what_lies_in_another_mount_is_not_reached() {
    let share = Share::open(Path::new("/")).unwrap();
    let tree = Tree::new(share, Budget::of_limit(Some(1024))).unwrap();
    let guest = Guest {
        directory: tempfile::tempdir().unwrap(),
        server: Server::new(tree, Policy::default()),
    };
    assert_eq!(guest.lookup(ROOT_ID, b"proc"), Err(Errno::XDEV));
    let listed = guest.list(Opcode::Readdirplus, ROOT_ID, 65536).unwrap();
    let proc = listed.iter().find(|entry| entry.name == b"proc").unwrap();
    assert_eq!(proc.node, 0);
}

#[test]
fn messages_that_are_none_are_not_parsed() {
    let header = InHeader {
        len: 40,
        opcode: 3,
        unique: 1,
        nodeid: 1,
        uid: 0,
        gid: 0,
        pid: 0,
        total_extlen: 0,
        padding: 0,
    };
    for len in 0..40 {
        assert!(Request::parse(&header.as_bytes()[..len]).is_none(), "{len}");
    }
    for len in [0, 39, 41, u32::MAX] {
        let header = InHeader { len, ..header };
        assert!(Request::parse(header.as_bytes()).is_none(), "{len}");
    }
    assert!(Request::parse(header.as_bytes()).is_some());
}
