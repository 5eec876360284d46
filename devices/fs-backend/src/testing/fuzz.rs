//! Bodies of the fuzzers. Property tests run the same on any machine.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;
use zerocopy::FromBytes as _;

use crate::abi::entry::EntryOut;
use crate::abi::opcode::{Class, Opcode};
use crate::abi::{IN_HEADER_LEN, InHeader, ROOT_ID};
use crate::server::{
    MAPPING_BYTES, Mapper, Part, Policy, Reply, Request, Server, Xattr, state_header,
};
use crate::share::{Budget, Share, Tree};

/// A share with one of everything, and a server for it.
///
/// # Errors
/// When the host refuses.
pub fn subject(directory: &Path) -> io::Result<Server> {
    fs::create_dir_all(directory.join("d/e"))?;
    fs::write(directory.join("f"), "data")?;
    fs::write(directory.join("d/g"), vec![7; 10_000])?;
    std::os::unix::fs::symlink("/etc/passwd", directory.join("l"))?;
    let share = Share::open(directory).map_err(io::Error::other)?;
    fs::write(directory.join("d/large"), [])?;
    fs::File::options()
        .write(true)
        .open(directory.join("d/large"))?
        .set_len(2 * MAPPING_BYTES + 5)?;
    let policy = Policy {
        xattr: Xattr::Shown,
        window: Some(WINDOW),
        ..Policy::default()
    };
    let server = Server::new(Tree::new(share, Budget::of_limit(Some(0)))?, policy);
    server.set_mapper(Box::new(Checked));
    Ok(server)
}

/// Size of the window, in bytes.
const WINDOW: u64 = 4 * MAPPING_BYTES;

/// Maps nothing, and sees that only what exists is asked for.
#[derive(Debug)]
struct Checked;

impl Checked {
    fn check(offset: u64, len: u64) {
        let whole = offset.is_multiple_of(MAPPING_BYTES) && len.is_multiple_of(MAPPING_BYTES);
        assert!(
            whole && len > 0 && offset + len <= WINDOW,
            "{len} at {offset}"
        );
    }
}

impl Mapper for Checked {
    fn map(&self, file: BorrowedFd<'_>, part: Part) -> Result<(), Errno> {
        Self::check(part.offset, part.len);
        let found = rustix::fs::fstat(file)?;
        assert_eq!(
            FileType::from_raw_mode(found.st_mode),
            FileType::RegularFile
        );
        let size = u64::try_from(found.st_size).unwrap_or(0);
        assert!(part.file_offset < size && part.file_offset.is_multiple_of(MAPPING_BYTES));
        Ok(())
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), Errno> {
        Self::check(offset, len);
        Ok(())
    }
}

/// Sends what `input` holds as messages, one after the other. In front of each are the length of
/// its body, the room for its reply, its opcode and a choice among the ids that were given so far.
///
/// # Panics
/// When a reply is more than there is room for, when what must be refused is not, or when the
/// server has stopped serving.
pub fn messages(server: &Server, input: &[u8]) {
    let mut nodes = vec![ROOT_ID];
    let mut rest = input;
    while let Some((&[body, room, opcode, node], after)) = rest.split_first_chunk() {
        let (body, after) = after.split_at(usize::from(body).min(after.len()));
        rest = after;
        let node = nodes.get(usize::from(node) % nodes.len().saturating_add(1));
        let header = InHeader {
            len: u32::try_from(IN_HEADER_LEN + body.len()).unwrap_or(0),
            opcode: opcode.into(),
            unique: 1,
            nodeid: node.copied().unwrap_or(u64::MAX),
            uid: 0,
            gid: 0,
            pid: 0,
            total_extlen: 0,
            padding: 0,
        };
        let room = usize::from(room) * 64;
        let reply = server.answer(&Request { header, body }, room);
        check(opcode.into(), &reply, room);
        if let (Class::Serve(Opcode::Lookup), Reply::Body(body)) =
            (Class::of(header.opcode), &reply)
            && let Ok((entry, _)) = EntryOut::read_from_prefix(body)
        {
            nodes.push(entry.nodeid);
        }
    }
    let header = InHeader::read_from_bytes(&[0; IN_HEADER_LEN]);
    if let Ok(header) = header {
        let header = InHeader {
            opcode: Opcode::Lookup as u32,
            nodeid: ROOT_ID,
            ..header
        };
        let body = b"f\0";
        let reply = server.answer(&Request { header, body }, 4096);
        assert!(matches!(reply, Reply::Body(_)), "{reply:?}");
    }
}

/// Any bytes as a message: parsed, and answered if they are one.
///
/// # Panics
/// As [`messages`].
pub fn message(server: &Server, input: &[u8]) {
    if let Some(request) = Request::parse(input) {
        let reply = server.answer(&request, 4096);
        check(request.header.opcode, &reply, 4096);
    }
}

/// Any bytes as what follows the beginning of a saved state. What is taken over has to serve.
///
/// # Panics
/// As [`messages`].
pub fn state(server: &Server, input: &[u8]) {
    let state = [&state_header(), input].concat();
    if server.restore(&state).is_ok() {
        messages(server, &[0; 64]);
    }
}

fn check(opcode: u32, reply: &Reply, room: usize) {
    match (Class::of(opcode), reply) {
        (Class::Mutating, Reply::Error(Errno::ROFS))
        | (Class::Unknown, Reply::Error(Errno::NOSYS))
        | (Class::Serve(_), Reply::None | Reply::Error(_)) => {}
        (Class::Serve(_), Reply::Body(body)) => assert!(body.len() <= room),
        (Class::Serve(_), Reply::Data { len, .. }) => assert!(*len <= room),
        (class, reply) => panic!("{class:?} was answered {reply:?}"),
    }
}
