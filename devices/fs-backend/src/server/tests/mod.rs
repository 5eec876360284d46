//! Tests of the server at its message entry, as a guest of any intent would use it.

mod changes;
mod escape;
mod mapping;
mod opcodes;
mod properties;
mod reading;
mod saving;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tempfile::TempDir;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Cache, MAX_READ, Policy, Reply, Request, Server};
use crate::abi::attr::AttrOut;
use crate::abi::entry::{Dirent, EntryOut, dirent_len};
use crate::abi::init::InitIn;
use crate::abi::opcode::Opcode;
use crate::abi::requests::{ForgetIn, OpenIn, ReadIn};
use crate::abi::{InHeader, ROOT_ID};
use crate::share::{Budget, Share, Tree};

/// A guest, the share that it sees, and its server.
pub(super) struct Guest {
    directory: TempDir,
    pub(super) server: Server,
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: Vec<u8>,
    pub(super) offset: u64,
    pub(super) node: u64,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self::with(Policy::default())
    }

    pub(super) fn with(policy: Policy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Self::server(directory.path(), policy, Budget::of_limit(Some(1024)));
        Self { directory, server }
    }

    pub(super) fn server(path: &Path, policy: Policy, budget: Budget) -> Server {
        let share = Share::open(path).unwrap();
        Server::new(Tree::new(share, budget).unwrap(), policy)
    }

    /// A path on the host.
    pub(super) fn host(&self, path: impl AsRef<OsStr>) -> PathBuf {
        self.directory.path().join(path.as_ref())
    }

    pub(super) fn raw(&self, opcode: u32, node: u64, body: &[u8], room: usize) -> Reply {
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + body.len()).unwrap(),
            opcode,
            unique: 7,
            nodeid: node,
            uid: 0,
            gid: 0,
            pid: 1,
            total_extlen: 0,
            padding: 0,
        };
        let message = [header.as_bytes(), body].concat();
        self.server.answer(&Request::parse(&message).unwrap(), room)
    }

    pub(super) fn ask(&self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        match self.raw(opcode as u32, node, body, MAX_READ) {
            Reply::None => Ok(Vec::new()),
            Reply::Error(error) => Err(error),
            Reply::Body(body) => Ok(body),
            Reply::Data { file, offset, len } => {
                let file = File::from(file.try_clone().unwrap());
                let mut data = vec![0; len];
                let mut done = 0;
                while let Ok(read @ 1..) = file.read_at(&mut data[done..], offset + done as u64) {
                    done += read;
                }
                data.truncate(done);
                Ok(data)
            }
        }
    }

    pub(super) fn get<T: FromBytes + KnownLayout + Immutable>(
        &self,
        opcode: Opcode,
        node: u64,
        body: &[u8],
    ) -> Result<T, Errno> {
        let reply = self.ask(opcode, node, body)?;
        Ok(T::read_from_bytes(&reply).expect("a reply of the right length"))
    }

    /// A lookup: also one that finds nothing and says for how long.
    pub(super) fn entry(&self, parent: u64, name: &[u8]) -> Result<EntryOut, Errno> {
        self.get(Opcode::Lookup, parent, &[name, b"\0"].concat())
    }

    pub(super) fn lookup(&self, parent: u64, name: &[u8]) -> Result<u64, Errno> {
        match self.entry(parent, name)?.nodeid {
            0 => Err(Errno::NOENT),
            node => Ok(node),
        }
    }

    /// Looks up each component of a path.
    pub(super) fn walk(&self, path: &str) -> Result<u64, Errno> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names
            .into_iter()
            .try_fold(ROOT_ID, |node, name| self.lookup(node, name.as_bytes()))
    }

    pub(super) fn forget(&self, node: u64, nlookup: u64) {
        let body = ForgetIn { nlookup };
        self.ask(Opcode::Forget, node, body.as_bytes()).unwrap();
    }

    pub(super) fn attr(&self, node: u64) -> Result<AttrOut, Errno> {
        self.get(Opcode::Getattr, node, &[0; 16])
    }

    pub(super) fn read(&self, node: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        self.ask(Opcode::Read, node, read_in(offset, size).as_bytes())
    }

    pub(super) fn open(&self, node: u64, flags: i32) -> Result<Vec<u8>, Errno> {
        let body = OpenIn {
            flags: flags.cast_unsigned(),
            open_flags: 0,
        };
        self.ask(Opcode::Open, node, body.as_bytes())
    }

    pub(super) fn init(&self, features: u64) -> Result<Vec<u8>, Errno> {
        self.ask(Opcode::Init, 0, init_in(7, 45, features).as_bytes())
    }

    /// A whole listing, a page of `size` bytes at a time.
    pub(super) fn list(&self, opcode: Opcode, node: u64, size: u32) -> Result<Vec<Listed>, Errno> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |entry| entry.offset);
            let page = self.ask(opcode, node, read_in(offset, size).as_bytes())?;
            if page.is_empty() {
                return Ok(all);
            }
            let mut rest = page.as_slice();
            while !rest.is_empty() {
                let mut node = 0;
                if opcode == Opcode::Readdirplus {
                    let (entry, after) = EntryOut::read_from_prefix(rest).unwrap();
                    (node, rest) = (entry.nodeid, after);
                }
                let (dirent, after) = Dirent::read_from_prefix(rest).unwrap();
                let len = dirent.namelen as usize;
                all.push(Listed {
                    name: after[..len].to_vec(),
                    offset: dirent.off,
                    node,
                });
                rest = &rest[dirent_len(len)..];
            }
        }
    }
}

pub(super) fn read_in(offset: u64, size: u32) -> ReadIn {
    ReadIn {
        fh: 0,
        offset,
        size,
        read_flags: 0,
        lock_owner: 0,
        flags: 0,
        padding: 0,
    }
}

pub(super) fn init_in(major: u32, minor: u32, features: u64) -> InitIn {
    InitIn {
        major,
        minor,
        max_readahead: 128 * 1024,
        flags: u32::try_from(features & u64::from(u32::MAX)).unwrap(),
        flags2: u32::try_from(features >> 32).unwrap(),
        unused: [0; 11],
    }
}

pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// A policy with a cache mode.
pub(super) fn caching(cache: Cache) -> Policy {
    Policy {
        cache,
        ..Policy::default()
    }
}

/// Bytes that repeat nowhere.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut file = File::open("/dev/urandom").unwrap();
    file.read_exact(&mut bytes).unwrap();
    bytes
}
