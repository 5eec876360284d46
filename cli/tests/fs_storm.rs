//! A backend in a process of its own that may hold 1024 descriptors, and a guest that lists and
//! looks at everything.
//!
//! `FS_STORM_FILES=1000000` makes the tree as large as a large store.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use fs_backend::abi::attr::AttrOut;
use fs_backend::abi::entry::{Dirent, EntryOut, dirent_len};
use fs_backend::abi::opcode::Opcode;
use fs_backend::testing::Frontend;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zerocopy::FromBytes as _;

const ROOT: u64 = 1;
/// Descriptors that the backend may have.
const DESCRIPTORS: u64 = 1024;
/// Type of an inode, in its mode.
const FORMAT: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
/// Files in each directory.
const PER_DIRECTORY: usize = 250;
/// Directories in each directory above.
const FAN: usize = 60;

fn files() -> usize {
    let set = std::env::var("FS_STORM_FILES").ok();
    set.map_or(20_000, |set| set.parse().unwrap())
}

/// Files that are distinct inodes, each with its number as its size.
fn plant(root: &Path, files: usize) {
    for number in 0..files {
        let part = number / PER_DIRECTORY;
        let directory = root.join(format!("{}/{part}", part / FAN));
        if number % PER_DIRECTORY == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        let file = fs::File::create(directory.join(format!("{number}"))).unwrap();
        file.set_len(number as u64).unwrap();
    }
}

fn ask(frontend: &mut Frontend, opcode: Opcode, node: u64, body: &[u8]) -> Vec<u8> {
    let reply = frontend.ask(opcode as u32, node, body, 1 << 20).unwrap();
    reply.unwrap_or_else(|error| panic!("{opcode:?}: {error}"))
}

/// Names and entries of a directory, without the dots.
fn list(frontend: &mut Frontend, node: u64) -> Vec<(Vec<u8>, EntryOut)> {
    let mut found = Vec::new();
    let mut offset = 0_u64;
    loop {
        let mut body = [0; 40];
        body[8..16].copy_from_slice(&offset.to_le_bytes());
        body[16..20].copy_from_slice(&(128_u32 << 10).to_le_bytes());
        let page = ask(frontend, Opcode::Readdirplus, node, &body);
        if page.is_empty() {
            return found;
        }
        let mut rest = page.as_slice();
        while !rest.is_empty() {
            let (entry, after) = EntryOut::read_from_prefix(rest).unwrap();
            let (dirent, after) = Dirent::read_from_prefix(after).unwrap();
            let name = &after[..dirent.namelen as usize];
            offset = dirent.off;
            if entry.nodeid != 0 {
                found.push((name.to_vec(), entry));
            }
            rest = &rest[size_of::<EntryOut>() + dirent_len(name.len())..];
        }
    }
}

/// The process that serves: the child of the one that was started.
fn serving(pid: u32) -> PathBuf {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    Path::new("/proc").join(children.trim())
}

#[test]
fn find_and_stat_of_everything_stay_within_1024_descriptors() {
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    plant(directory.path(), files());
    let program = PathBuf::from(env!("CARGO_BIN_EXE_slotvmm"));
    let source = directory.path().to_str().unwrap();
    let arguments = ["fs-backend", "--fd", "0", "--source", source];
    let place = tempfile::tempdir().unwrap();
    let mut backend = fs_backend::spawn(&program, arguments, place.path()).unwrap();
    let mut frontend = Frontend::new(backend.connection.try_clone().unwrap()).unwrap();

    let mut left = vec![ROOT];
    let mut found = Vec::new();
    while let Some(node) = left.pop() {
        for (name, entry) in list(&mut frontend, node) {
            if entry.attr.mode & FORMAT == DIRECTORY {
                left.push(entry.nodeid);
            } else {
                let number: u64 = str::from_utf8(&name).unwrap().parse().unwrap();
                found.push((number, entry.nodeid));
            }
        }
    }
    found.sort_unstable();
    assert!(
        found
            .iter()
            .map(|(number, _)| *number)
            .eq(0..files() as u64)
    );
    for (number, node) in &found {
        let reply = ask(&mut frontend, Opcode::Getattr, *node, &[0; 16]);
        let attr = AttrOut::read_from_bytes(&reply).unwrap().attr;
        assert_eq!(attr.size, *number);
        if number % 10 == 0 {
            let mut body = [0; 40];
            body[16..20].copy_from_slice(&8_u32.to_le_bytes());
            let data = ask(&mut frontend, Opcode::Read, *node, &body);
            assert_eq!(data.len() as u64, (*number).min(8));
        }
    }
    let process = serving(backend.child.id());
    let open = fs::read_dir(process.join("fd")).unwrap().count();
    assert!(open as u64 <= DESCRIPTORS, "{open}");
    let status = fs::read_to_string(process.join("status")).unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{} files: {open} descriptors, {memory:?}", found.len());
    drop(frontend);
    backend
        .connection
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    assert_eq!(backend.child.wait().unwrap().code(), Some(0));
}
