//! Names, data and listings of every shape.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;

use super::*;
use crate::abi::requests::{LseekIn, LseekOut};

#[test]
fn names_with_every_byte_and_of_every_length_are_found() {
    let guest = Guest::new();
    let single = (1..=255_u8)
        .filter(|byte| !b"./".contains(byte))
        .map(|byte| vec![byte]);
    let lengths = (1..=255).map(|len| vec![b'n'; len]);
    let names: BTreeSet<Vec<u8>> = single.chain(lengths).chain([b"...".to_vec()]).collect();
    for name in &names {
        std::fs::write(guest.host(os(name)), name).unwrap();
    }
    for name in &names {
        let node = guest.lookup(ROOT_ID, name).unwrap();
        assert_eq!(&guest.read(node, 0, 300).unwrap(), name);
    }
    for opcode in [Opcode::Readdir, Opcode::Readdirplus] {
        let listed = guest.list(opcode, ROOT_ID, 4096).unwrap();
        let found: BTreeSet<Vec<u8>> = listed
            .iter()
            .map(|entry| entry.name.clone())
            .filter(|name| name != b"." && name != b"..")
            .collect();
        assert_eq!(found, names);
        assert_eq!(listed.len(), names.len() + 2);
    }
}

#[test]
fn listings_go_on_wherever_a_page_ends() {
    let guest = Guest::new();
    for number in 0..500 {
        std::fs::write(guest.host(format!("file-{number}")), "").unwrap();
    }
    let whole = guest.list(Opcode::Readdir, ROOT_ID, 1 << 20).unwrap();
    assert_eq!(whole.len(), 502);
    for size in [48, 100, 1000, 4096, 65536] {
        assert_eq!(guest.list(Opcode::Readdir, ROOT_ID, size).unwrap(), whole);
    }
    // Two at once, each at its own place.
    let third = |offset| guest.ask(Opcode::Readdir, ROOT_ID, read_in(offset, 48).as_bytes());
    let expected = third(whole[1].offset).unwrap();
    guest.list(Opcode::Readdir, ROOT_ID, 4096).unwrap();
    assert_eq!(third(whole[1].offset).unwrap(), expected);
}

#[test]
fn a_listing_with_attributes_gives_one_reference_each() {
    let guest = Guest::new();
    for number in 0..100 {
        std::fs::write(guest.host(format!("{number}")), "").unwrap();
    }
    let listed = guest.list(Opcode::Readdirplus, ROOT_ID, 4096).unwrap();
    assert_eq!(guest.server.tree().nodes(), 101);
    for entry in listed.iter().filter(|entry| entry.node != 0) {
        assert_eq!(guest.lookup(ROOT_ID, &entry.name).unwrap(), entry.node);
        guest.forget(entry.node, 2);
    }
    assert_eq!(guest.server.tree().nodes(), 1);
}

#[test]
fn deep_paths_are_reached_without_any_descriptor() {
    let guest = Guest::new();
    let name = "d".repeat(200);
    let mut directory = Share::open(&guest.host(""))
        .unwrap()
        .root()
        .try_clone_to_owned()
        .unwrap();
    let mut node = ROOT_ID;
    let depth = 60;
    let mode = rustix::fs::Mode::RWXU;
    for _ in 0..depth {
        rustix::fs::mkdirat(&directory, &*name, mode).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        directory = rustix::fs::openat(&directory, &*name, flags, mode).unwrap();
        node = guest.lookup(node, name.as_bytes()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&directory, "file", flags, mode).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
    // 12 kB of path, from the root on.
    let state = guest.server.save().unwrap();
    guest.server.restore(&state).unwrap();
    assert_eq!(guest.server.tree().descriptors(), 0);
    let file = guest.lookup(node, b"file").unwrap();
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"deep");
}

#[test]
fn a_huge_sparse_file_is_read_at_its_end_and_its_holes_found() {
    let guest = Guest::new();
    let file = File::create(guest.host("sparse")).unwrap();
    let end = 1_u64 << 40;
    file.write_all_at(b"end", end).unwrap();
    let node = guest.lookup(ROOT_ID, b"sparse").unwrap();
    assert_eq!(guest.attr(node).unwrap().attr.size, end + 3);
    assert_eq!(guest.read(node, end, 100).unwrap(), b"end");
    assert_eq!(guest.read(node, 12345, 4).unwrap(), [0; 4]);
    assert_eq!(guest.read(node, end + 3, 100), Ok(Vec::new()));
    let seek = |offset, whence: i32| {
        let body = LseekIn {
            fh: 0,
            offset,
            whence: whence.cast_unsigned(),
            padding: 0,
        };
        let found: Result<LseekOut, _> = guest.get(Opcode::Lseek, node, body.as_bytes());
        found.map(|found| found.offset)
    };
    assert_eq!(seek(0, libc::SEEK_HOLE), Ok(0));
    let data = seek(0, libc::SEEK_DATA).unwrap();
    assert!(data <= end && end - data < 1 << 20, "{data}");
    assert_eq!(seek(end + 3, libc::SEEK_DATA), Err(Errno::NXIO));
    assert_eq!(seek(0, libc::SEEK_SET), Err(Errno::INVAL));
    assert_eq!(seek(u64::MAX, libc::SEEK_DATA), Err(Errno::INVAL));
}

#[test]
fn data_is_read_at_any_offset() {
    let guest = Guest::new();
    let data = noise(3 << 20);
    std::fs::write(guest.host("file"), &data).unwrap();
    let node = guest.lookup(ROOT_ID, b"file").unwrap();
    for (offset, size) in [(0, 1 << 20), (1, 4096), (4095, 8192), ((3 << 20) - 5, 100)] {
        let end = (offset + size).min(data.len());
        let read = guest
            .read(node, offset as u64, u32::try_from(size).unwrap())
            .unwrap();
        assert!(read == data[offset..end], "{size} bytes at {offset}");
    }
}

#[test]
fn names_of_one_file_are_one_inode() {
    let guest = Guest::new();
    std::fs::write(guest.host("a"), "data").unwrap();
    std::fs::hard_link(guest.host("a"), guest.host("b")).unwrap();
    let node = guest.lookup(ROOT_ID, b"a").unwrap();
    assert_eq!(guest.lookup(ROOT_ID, b"b").unwrap(), node);
    std::fs::remove_file(guest.host("a")).unwrap();
    assert_eq!(guest.read(node, 0, 10).unwrap(), b"data");
}

#[test]
fn more_files_than_descriptors_are_read() {
    let guest = Guest::new();
    let budget = Budget::of_limit(Some(256));
    let server = Guest::server(&guest.host(""), Policy::default(), budget);
    let guest = Guest { server, ..guest };
    for directory in 0..100 {
        std::fs::create_dir(guest.host(format!("{directory}"))).unwrap();
        for file in 0..20 {
            let path = format!("{directory}/{file}");
            std::fs::write(guest.host(&path), &path).unwrap();
        }
    }
    for _ in 0..2 {
        for directory in 0..100 {
            for file in 0..20 {
                let path = format!("{directory}/{file}");
                let node = guest.walk(&path).unwrap();
                assert_eq!(guest.read(node, 0, 100).unwrap(), path.as_bytes());
                assert!(guest.server.tree().descriptors() <= 2 * budget.each());
            }
        }
    }
    assert_eq!(guest.server.tree().nodes(), 2101);
}
