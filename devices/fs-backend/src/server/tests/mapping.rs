//! What a guest can have mapped, and what it cannot.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};

use super::*;
use crate::abi::init::{self, InitOut};
use crate::abi::mapping::{
    ATTR_DAX, MAX_REMOVALS, RemoveMappingIn, RemoveMappingOne, SETUP_READ, SETUP_WRITE,
    SetupMappingIn,
};
use crate::server::{MAPPING_BYTES, MIN_MAPPED_BYTES, Mapper, Part, StateError};

const WINDOW: u64 = 8 * MAPPING_BYTES;

const FEATURES: u64 = init::INIT_EXT | init::MAP_ALIGNMENT | init::HAS_INODE_DAX;

/// What was asked of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A file, by its inode number.
    Map(u64, Part),
    Unmap(u64, u64),
}

#[derive(Debug, Clone, Default)]
struct Frontend(Arc<Mutex<Vec<Asked>>>);

impl Frontend {
    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Mapper for Frontend {
    fn map(&self, file: BorrowedFd<'_>, part: Part) -> Result<(), Errno> {
        let ino = rustix::fs::fstat(file)?.st_ino;
        self.0.lock().unwrap().push(Asked::Map(ino, part));
        Ok(())
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.0.lock().unwrap().push(Asked::Unmap(offset, len));
        Ok(())
    }
}

/// A guest with a window, a large file and a small one.
fn mapping(cache: Cache) -> (Guest, Frontend) {
    let guest = Guest::with(Policy {
        cache,
        window: Some(WINDOW),
        ..Policy::default()
    });
    for (name, size) in [
        ("large", 3 * MAPPING_BYTES + 1),
        ("small", MIN_MAPPED_BYTES - 1),
    ] {
        let file = File::create(guest.host(name)).unwrap();
        file.set_len(size).unwrap();
    }
    let frontend = Frontend::default();
    guest.server.set_mapper(Box::new(frontend.clone()));
    (guest, frontend)
}

fn setup(foffset: u64, len: u64, flags: u64, moffset: u64) -> SetupMappingIn {
    SetupMappingIn {
        fh: u64::MAX,
        foffset,
        len,
        flags,
        moffset,
    }
}

fn agreed(guest: &Guest) -> (u64, u16) {
    let reply = guest.init(FEATURES).unwrap();
    let reply = InitOut::read_from_bytes(&reply).unwrap();
    let features = u64::from(reply.flags) | u64::from(reply.flags2) << 32;
    (features & (FEATURES & !init::INIT_EXT), reply.map_alignment)
}

#[test]
fn large_files_are_marked_and_mapped_where_the_guest_says() {
    let (guest, frontend) = mapping(Cache::Always);
    assert_eq!(
        agreed(&guest),
        (init::MAP_ALIGNMENT | init::HAS_INODE_DAX, 21)
    );
    assert_eq!(frontend.take(), [Asked::Unmap(0, WINDOW)], "a new session");
    let small = guest.entry(ROOT_ID, b"small").unwrap();
    assert_eq!(small.attr.flags & ATTR_DAX, 0);
    let large = guest.entry(ROOT_ID, b"large").unwrap();
    assert_eq!(large.attr.flags & ATTR_DAX, ATTR_DAX);
    let attr = guest.attr(large.nodeid).unwrap().attr;
    assert_eq!(attr.flags & ATTR_DAX, ATTR_DAX);
    let directory = guest.attr(ROOT_ID).unwrap().attr;
    assert_eq!(directory.flags & ATTR_DAX, 0);

    let ino = std::fs::metadata(guest.host("large")).unwrap().ino();
    let asked = setup(
        2 * MAPPING_BYTES,
        2 * MAPPING_BYTES,
        SETUP_READ,
        4 * MAPPING_BYTES,
    );
    let reply = guest.ask(Opcode::SetupMapping, large.nodeid, asked.as_bytes());
    assert_eq!(reply, Ok(Vec::new()));
    let part = Part {
        offset: 4 * MAPPING_BYTES,
        len: 2 * MAPPING_BYTES,
        file_offset: 2 * MAPPING_BYTES,
    };
    assert_eq!(frontend.take(), [Asked::Map(ino, part)]);
    guest.ask(Opcode::Destroy, 0, &[]).unwrap();
    assert_eq!(
        frontend.take(),
        [Asked::Unmap(0, WINDOW)],
        "the session ended"
    );
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    let (guest, frontend) = mapping(Cache::Always);
    let large = guest.lookup(ROOT_ID, b"large").unwrap();
    let (cell, read) = (MAPPING_BYTES, SETUP_READ);
    for (what, asked, error) in [
        (
            "to write",
            setup(0, cell, SETUP_READ | SETUP_WRITE, 0),
            Errno::ROFS,
        ),
        (
            "to write alone",
            setup(0, cell, SETUP_WRITE, 0),
            Errno::ROFS,
        ),
        ("unknown flags", setup(0, cell, 4, 0), Errno::INVAL),
        ("nothing", setup(0, 0, read, 0), Errno::INVAL),
        ("half a cell", setup(0, cell / 2, read, 0), Errno::INVAL),
        ("between cells", setup(0, cell, read, 4096), Errno::INVAL),
        ("an odd part", setup(4096, cell, read, 0), Errno::INVAL),
        (
            "beyond the window",
            setup(0, cell, read, WINDOW),
            Errno::INVAL,
        ),
        (
            "across its end",
            setup(0, 2 * cell, read, WINDOW - cell),
            Errno::INVAL,
        ),
        (
            "around",
            setup(0, cell, read, 0_u64.wrapping_sub(cell)),
            Errno::INVAL,
        ),
        (
            "beyond the file",
            setup(4 * cell, cell, read, 0),
            Errno::INVAL,
        ),
        (
            "around the file",
            setup(0_u64.wrapping_sub(cell), cell, read, 0),
            Errno::INVAL,
        ),
    ] {
        let reply = guest.ask(Opcode::SetupMapping, large, asked.as_bytes());
        assert_eq!(reply, Err(error), "{what}");
    }
    assert_eq!(frontend.take(), []);
}

#[test]
fn only_known_files_are_mapped() {
    let (guest, frontend) = mapping(Cache::Always);
    let good = setup(0, MAPPING_BYTES, SETUP_READ, 0);
    let reply = guest.ask(Opcode::SetupMapping, ROOT_ID, good.as_bytes());
    assert_eq!(reply, Err(Errno::ISDIR));
    let reply = guest.ask(Opcode::SetupMapping, 77, good.as_bytes());
    assert_eq!(reply, Err(Errno::STALE));
    assert_eq!(frontend.take(), []);
}

#[test]
fn mappings_are_removed_as_far_as_the_list_goes() {
    let (guest, frontend) = mapping(Cache::Auto);
    let removal = |count: u32, places: &[(u64, u64)]| {
        let mut body = RemoveMappingIn { count }.as_bytes().to_vec();
        for &(moffset, len) in places {
            body.extend(RemoveMappingOne { moffset, len }.as_bytes());
        }
        guest.ask(Opcode::RemoveMapping, ROOT_ID, &body)
    };
    let cell = MAPPING_BYTES;
    let places = [(0, cell), (2 * cell, 3 * cell), (cell, cell)];
    assert_eq!(removal(2, &places), Ok(Vec::new()));
    let removed = [Asked::Unmap(0, cell), Asked::Unmap(2 * cell, 3 * cell)];
    assert_eq!(frontend.take(), removed, "two were announced");
    assert_eq!(removal(9, &places[2..]), Ok(Vec::new()));
    assert_eq!(frontend.take(), [Asked::Unmap(cell, cell)], "one is there");
    assert_eq!(removal(MAX_REMOVALS + 1, &[]), Err(Errno::INVAL));
    assert_eq!(removal(1, &[(WINDOW, cell)]), Err(Errno::INVAL));
    assert_eq!(removal(1, &[(0, 4096)]), Err(Errno::INVAL));
    assert_eq!(frontend.take(), []);
}

#[test]
fn without_a_window_nothing_is_offered_or_mapped() {
    let (never, _) = mapping(Cache::Never);
    let unheard = Guest::with(Policy {
        window: Some(WINDOW),
        ..Policy::default()
    });
    let without = Guest::new();
    without.server.set_mapper(Box::new(Frontend::default()));
    for (what, guest) in [
        ("nothing is kept", never),
        ("the frontend has none", unheard),
        ("it was not asked for", without),
    ] {
        assert_eq!(agreed(&guest).0, 0, "{what}");
        std::fs::write(guest.host("file"), vec![0; 3 << 20]).unwrap();
        let file = guest.entry(ROOT_ID, b"file").unwrap();
        assert_eq!(file.attr.flags & ATTR_DAX, 0, "{what}");
    }
    let guest = Guest::new();
    let asked = setup(0, MAPPING_BYTES, SETUP_READ, 0);
    let reply = guest.ask(Opcode::SetupMapping, ROOT_ID, asked.as_bytes());
    assert_eq!(reply, Err(Errno::NOSYS));
}

#[test]
fn mappings_are_saved_and_asked_for_again() {
    let (guest, _) = mapping(Cache::Always);
    guest.init(FEATURES).unwrap();
    let large = guest.lookup(ROOT_ID, b"large").unwrap();
    let cell = MAPPING_BYTES;
    for (from, len, to) in [(0, 2, 1), (2, 1, 3), (1, 1, 7), (0, 1, 3)] {
        let asked = setup(from * cell, len * cell, SETUP_READ, to * cell);
        let reply = guest.ask(Opcode::SetupMapping, large, asked.as_bytes());
        assert_eq!(reply, Ok(Vec::new()));
    }
    let state = guest.server.save().unwrap();
    let policy = Policy {
        window: Some(WINDOW),
        ..Policy::default()
    };
    let server = || Guest::server(&guest.host(""), policy, Budget::of_limit(Some(64)));
    let other = server();
    assert!(other.restore(&state).is_err(), "nobody maps");
    let frontend = Frontend::default();
    other.set_mapper(Box::new(frontend.clone()));
    other.restore(&state).unwrap();
    let ino = std::fs::metadata(guest.host("large")).unwrap().ino();
    let map = |offset, len, file_offset| {
        let part = Part {
            offset: offset * cell,
            len: len * cell,
            file_offset: file_offset * cell,
        };
        Asked::Map(ino, part)
    };
    let asked = frontend.take();
    let again = [map(1, 2, 0), map(3, 1, 0), map(7, 1, 1)];
    assert_eq!(asked[0], Asked::Unmap(0, WINDOW));
    assert_eq!(asked[1..], again, "the last at a place counts");
    assert_eq!(other.save().unwrap(), state);

    let smaller = Policy {
        window: Some(7 * cell),
        ..policy
    };
    let smaller = Guest::server(&guest.host(""), smaller, Budget::of_limit(Some(64)));
    smaller.set_mapper(Box::new(frontend.clone()));
    assert!(matches!(smaller.restore(&state), Err(StateError::Damaged)));
    assert_eq!(frontend.take(), []);
}
