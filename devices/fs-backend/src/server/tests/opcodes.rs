//! Every opcode: what is served, what is refused, how.

use super::*;
use crate::abi::attr::{StatfsOut, StatxOut};
use crate::abi::init::{self, InitOut};
use crate::abi::opcode::{Class, MUTATING};
use crate::abi::requests::{
    AccessIn, BatchForgetIn, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, ForgetOne, GetxattrIn, GetxattrOut,
    OpenOut, StatxIn,
};
use crate::server::Xattr;

const EVERYTHING: u64 = u64::MAX;

#[test]
fn everything_that_changes_something_is_refused_and_changes_nothing() {
    let guest = Guest::new();
    std::fs::write(guest.host("file"), "data").unwrap();
    let node = guest.lookup(ROOT_ID, b"file").unwrap();
    let bodies: [&[u8]; 4] = [b"", b"name\0", &[0; 128], &[0xff; 4096]];
    for &(opcode, name) in MUTATING {
        for target in [ROOT_ID, node, 0, u64::MAX] {
            for body in bodies {
                let reply = guest.raw(opcode, target, body, MAX_READ);
                assert!(
                    matches!(reply, Reply::Error(Errno::ROFS)),
                    "{name}: {reply:?}"
                );
            }
        }
    }
    assert_eq!(std::fs::read(guest.host("file")).unwrap(), b"data");
    assert_eq!(std::fs::read_dir(guest.host("")).unwrap().count(), 1);
}

#[test]
fn what_is_not_in_the_table_is_not_known() {
    let guest = Guest::new();
    let unknown = (0..8192).filter(|&opcode| Class::of(opcode) == Class::Unknown);
    for opcode in unknown.chain([u32::MAX, 1 << 31]) {
        let reply = guest.raw(opcode, ROOT_ID, &[0; 64], MAX_READ);
        assert!(matches!(reply, Reply::Error(Errno::NOSYS)), "{opcode}");
    }
}

#[test]
fn every_request_survives_a_body_of_any_length() {
    let guest = Guest::with(Policy {
        xattr: Xattr::Shown,
        ..Policy::default()
    });
    std::fs::write(guest.host("file"), "data").unwrap();
    let file = guest.lookup(ROOT_ID, b"file").unwrap();
    for &opcode in Opcode::ALL {
        for node in [ROOT_ID, file, 0, 2, u64::MAX] {
            for len in 0..=80 {
                for byte in [0, 1, 0xff] {
                    guest.raw(opcode as u32, node, &vec![byte; len], MAX_READ);
                    guest.raw(opcode as u32, node, &vec![byte; len], len);
                }
            }
        }
    }
}

#[test]
fn a_session_agrees_on_what_both_can_do() {
    let guest = Guest::new();
    let reply = guest.init(EVERYTHING).unwrap();
    let reply = InitOut::read_from_bytes(&reply).unwrap();
    let features = u64::from(reply.flags) | u64::from(reply.flags2) << 32;
    assert_eq!((reply.major, reply.minor), (7, init::MINOR));
    assert_eq!(reply.max_pages, 256);
    for feature in [
        init::MAX_PAGES,
        init::DO_READDIRPLUS,
        init::PARALLEL_DIROPS,
        init::CACHE_SYMLINKS,
        init::NO_OPEN_SUPPORT,
    ] {
        assert_ne!(features & feature, 0, "{feature:#x}");
    }
    let reply = guest.init(init::ASYNC_READ).unwrap();
    let reply = InitOut::read_from_bytes(&reply).unwrap();
    assert_eq!(u64::from(reply.flags), init::ASYNC_READ);
    assert_eq!(reply.flags2, 0);
}

#[test]
fn a_driver_that_is_too_old_is_refused_and_a_newer_one_told_the_version() {
    let guest = Guest::new();
    for (major, minor) in [(6, 99), (7, 30), (0, 0)] {
        let asked = init_in(major, minor, 0);
        let reply = guest.ask(Opcode::Init, 0, asked.as_bytes());
        assert_eq!(reply, Err(Errno::PROTO), "{major}.{minor}");
    }
    let reply: InitOut = guest
        .get(Opcode::Init, 0, init_in(8, 0, EVERYTHING).as_bytes())
        .unwrap();
    assert_eq!((reply.major, reply.flags), (7, 0));
    // Before 7.36 the request was shorter.
    let short = init_in(7, 31, init::ASYNC_READ);
    let short = &short.as_bytes()[..init::INIT_IN_SHORT];
    assert!(guest.ask(Opcode::Init, 0, short).is_ok());
}

#[test]
fn opening_is_saved_where_the_guest_keeps_everything() {
    let guest = Guest::new();
    std::fs::write(guest.host("file"), "data").unwrap();
    let file = guest.lookup(ROOT_ID, b"file").unwrap();
    let opened = OpenOut::read_from_bytes(&guest.open(file, libc::O_RDONLY).unwrap()).unwrap();
    assert_eq!(opened.open_flags, FOPEN_KEEP_CACHE);
    guest.init(EVERYTHING).unwrap();
    assert_eq!(guest.open(file, libc::O_RDONLY), Err(Errno::NOSYS));
    let body = OpenIn {
        flags: 0,
        open_flags: 0,
    };
    let opened = guest.ask(Opcode::Opendir, ROOT_ID, body.as_bytes());
    assert_eq!(opened, Err(Errno::NOSYS));
}

#[test]
fn opening_to_write_is_refused_always() {
    for cache in [Cache::Always, Cache::Auto, Cache::Never] {
        let guest = Guest::with(caching(cache));
        std::fs::write(guest.host("file"), "data").unwrap();
        let file = guest.lookup(ROOT_ID, b"file").unwrap();
        for session in [false, true] {
            if session {
                guest.init(EVERYTHING).unwrap();
            }
            for flags in [
                libc::O_WRONLY,
                libc::O_RDWR,
                libc::O_TRUNC,
                libc::O_RDWR | libc::O_APPEND,
            ] {
                assert_eq!(
                    guest.open(file, flags),
                    Err(Errno::ROFS),
                    "{cache:?} {flags:o}"
                );
            }
        }
    }
}

#[test]
fn without_cache_files_are_opened_for_direct_reads() {
    let guest = Guest::with(caching(Cache::Never));
    std::fs::write(guest.host("file"), "data").unwrap();
    guest.init(EVERYTHING).unwrap();
    let entry = guest.entry(ROOT_ID, b"file").unwrap();
    assert_eq!((entry.entry_valid, entry.entry_valid_nsec), (0, 0));
    let opened = guest.open(entry.nodeid, libc::O_RDONLY).unwrap();
    let opened = OpenOut::read_from_bytes(&opened).unwrap();
    assert_eq!(opened.open_flags, FOPEN_DIRECT_IO);
    assert_eq!(guest.lookup(ROOT_ID, b"none"), Err(Errno::NOENT));
}

#[test]
fn attributes_are_those_of_the_host() {
    use std::os::unix::fs::MetadataExt as _;
    let guest = Guest::new();
    std::fs::write(guest.host("file"), noise(12345)).unwrap();
    let host = std::fs::metadata(guest.host("file")).unwrap();
    let node = guest.lookup(ROOT_ID, b"file").unwrap();
    let attr = guest.attr(node).unwrap().attr;
    assert_eq!((attr.ino, attr.size), (host.ino(), 12345));
    assert_eq!((attr.mode, attr.nlink), (host.mode(), 1));
    assert_eq!((attr.uid, attr.gid), (host.uid(), host.gid()));
    assert_eq!(i64::try_from(attr.mtime).unwrap(), host.mtime());
    assert_eq!(i64::from(attr.mtimensec), host.mtime_nsec());
    let asked = StatxIn {
        getattr_flags: 0,
        reserved: 0,
        fh: 0,
        sx_flags: 0,
        sx_mask: u32::MAX,
    };
    let statx: StatxOut = guest.get(Opcode::Statx, node, asked.as_bytes()).unwrap();
    assert_eq!((statx.ino, statx.size), (host.ino(), 12345));
    assert_eq!(statx.mtime.tv_sec, host.mtime());
}

#[test]
fn small_requests_are_answered() {
    let guest = Guest::new();
    std::os::unix::fs::symlink("../else/where", guest.host("link")).unwrap();
    let link = guest.lookup(ROOT_ID, b"link").unwrap();
    assert_eq!(
        guest.ask(Opcode::Readlink, link, b"").unwrap(),
        b"../else/where"
    );
    let space: StatfsOut = guest.get(Opcode::Statfs, ROOT_ID, b"").unwrap();
    assert!(space.blocks > 0);
    for opcode in [Opcode::Release, Opcode::Releasedir] {
        assert_eq!(guest.ask(opcode, ROOT_ID, &[0; 24]), Ok(Vec::new()));
    }
    for opcode in [Opcode::Flush, Opcode::Fsync, Opcode::Fsyncdir] {
        assert_eq!(guest.ask(opcode, ROOT_ID, &[0; 24]), Err(Errno::NOSYS));
    }
    let access = |mask: i32| {
        let body = AccessIn {
            mask: mask.cast_unsigned(),
            padding: 0,
        };
        guest.ask(Opcode::Access, ROOT_ID, body.as_bytes())
    };
    assert!(access(libc::R_OK | libc::X_OK).is_ok());
    assert_eq!(access(libc::W_OK), Err(Errno::ROFS));
    assert!(matches!(
        guest.raw(Opcode::Interrupt as u32, 0, &[0; 8], 0),
        Reply::None
    ));
}

#[test]
fn extended_attributes_are_hidden_or_shown() {
    let asked = GetxattrIn {
        size: 0,
        padding: 0,
    };
    let guest = Guest::new();
    let hidden = guest.ask(Opcode::Listxattr, ROOT_ID, asked.as_bytes());
    assert_eq!(hidden, Err(Errno::NOSYS));

    let guest = Guest::with(Policy {
        xattr: Xattr::Shown,
        ..Policy::default()
    });
    std::fs::write(guest.host("file"), "").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(guest.host("file"), "user.colour", b"blue", flags).is_err() {
        eprintln!("skipped: no extended attributes on this file system");
        return;
    }
    let file = guest.lookup(ROOT_ID, b"file").unwrap();
    let value = |size, name: &[u8]| {
        let asked = GetxattrIn { size, padding: 0 };
        guest.ask(Opcode::Getxattr, file, &[asked.as_bytes(), name].concat())
    };
    assert_eq!(value(64, b"user.colour\0").unwrap(), b"blue");
    assert_eq!(value(3, b"user.colour\0"), Err(Errno::RANGE));
    assert_eq!(value(64, b"user.shape\0"), Err(Errno::NODATA));
    assert_eq!(value(64, b"user.colour"), Err(Errno::INVAL));
    let len = GetxattrOut::read_from_bytes(&value(0, b"user.colour\0").unwrap()).unwrap();
    assert_eq!(len.size, 4);
    let asked = GetxattrIn {
        size: 64,
        padding: 0,
    };
    let names = guest
        .ask(Opcode::Listxattr, file, asked.as_bytes())
        .unwrap();
    assert!(names.windows(12).any(|name| name == b"user.colour\0"));
}

#[test]
fn forgotten_inodes_are_not_known_any_more() {
    let guest = Guest::new();
    std::fs::create_dir(guest.host("a")).unwrap();
    std::fs::write(guest.host("a/b"), "").unwrap();
    let (a, b) = (guest.walk("a").unwrap(), guest.walk("a/b").unwrap());
    // Looked up twice; its path leads through it, besides.
    guest.forget(a, 2);
    assert!(guest.attr(b).is_ok());
    guest.forget(b, 1);
    assert_eq!(guest.attr(b).map(|_| ()), Err(Errno::STALE));
    assert_eq!(guest.attr(a).map(|_| ()), Err(Errno::STALE));
    assert_eq!(guest.server.tree().nodes(), 1);
    assert_eq!(guest.server.tree().descriptors(), 1, "the root");
}

#[test]
fn many_are_forgotten_at_once() {
    let guest = Guest::new();
    let nodes: Vec<u64> = (0..100)
        .map(|number| {
            let name = number.to_string();
            std::fs::write(guest.host(&name), "").unwrap();
            guest.lookup(ROOT_ID, name.as_bytes()).unwrap()
        })
        .collect();
    let head = BatchForgetIn {
        count: 1000,
        dummy: 0,
    };
    let mut body = head.as_bytes().to_vec();
    for &nodeid in &nodes {
        body.extend_from_slice(ForgetOne { nodeid, nlookup: 1 }.as_bytes());
    }
    guest.ask(Opcode::BatchForget, 0, &body).unwrap();
    assert_eq!(guest.server.tree().nodes(), 1);
}

#[test]
fn the_end_of_a_session_leaves_nothing() {
    for opcode in [Opcode::Destroy, Opcode::Init] {
        let guest = Guest::new();
        std::fs::write(guest.host("file"), "data").unwrap();
        guest.init(EVERYTHING).unwrap();
        let file = guest.lookup(ROOT_ID, b"file").unwrap();
        guest.read(file, 0, 4).unwrap();
        let body = init_in(7, 45, 0);
        guest.ask(opcode, 0, body.as_bytes()).unwrap();
        assert_eq!(guest.server.tree().nodes(), 1);
        assert_eq!(guest.server.tree().descriptors(), 0);
        assert_eq!(guest.read(file, 0, 4), Err(Errno::STALE));
        let again = guest.lookup(ROOT_ID, b"file").unwrap();
        assert_ne!(again, file);
    }
}

#[test]
fn a_lookup_without_room_for_the_reply_leaves_no_reference() {
    let guest = Guest::new();
    std::fs::write(guest.host("file"), "").unwrap();
    let reply = guest.raw(Opcode::Lookup as u32, ROOT_ID, b"file\0", 127);
    assert!(matches!(reply, Reply::Error(Errno::INVAL)));
    assert_eq!(guest.server.tree().nodes(), 1);
}
