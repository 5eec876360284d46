//! Data of files, and extended attributes.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::message::MAX_READ;
use super::{Reply, Request, Server, Xattr};
use crate::abi::requests::{GetxattrIn, GetxattrOut, LseekIn, LseekOut, ReadIn};
use crate::inode::{Kind, NodeId};

/// Longest value, and longest list of names, that Linux passes on, in bytes: `XATTR_SIZE_MAX`.
const MAX_XATTR: usize = 64 * 1024;

impl Server {
    /// The data itself is left to whoever holds the guest's memory.
    pub(super) fn read(
        &self,
        id: NodeId,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        let asked: ReadIn = request.structure()?;
        let len = usize::try_from(asked.size).unwrap_or(MAX_READ);
        i64::try_from(asked.offset).map_err(|_| Errno::INVAL)?;
        Ok(Reply::Data {
            file: self.tree.file(id)?,
            offset: asked.offset,
            len: len.min(room).min(MAX_READ),
        })
    }

    pub(super) fn lseek(
        &self,
        id: NodeId,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        let asked: LseekIn = request.structure()?;
        i64::try_from(asked.offset).map_err(|_| Errno::INVAL)?;
        let from = match i32::try_from(asked.whence) {
            Ok(libc::SEEK_DATA) => SeekFrom::Data(asked.offset),
            Ok(libc::SEEK_HOLE) => SeekFrom::Hole(asked.offset),
            // The driver knows the others without asking.
            _ => return Err(Errno::INVAL),
        };
        // The position of the descriptor means nothing: data is read by its offset.
        let offset = rustix::fs::seek(&*self.tree.file(id)?, from)?;
        Reply::structure(&LseekOut { offset }, room)
    }

    pub(super) fn getxattr(
        &self,
        id: NodeId,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        if self.policy.xattr == Xattr::Hidden {
            return Err(Errno::NOSYS);
        }
        let (asked, name): (GetxattrIn, _) = request.split()?;
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
        let value = self.with_attributes(id, Err(Errno::NODATA), |fd| {
            let mut value = Vec::with_capacity(MAX_XATTR);
            rustix::fs::fgetxattr(fd, name, rustix::buffer::spare_capacity(&mut value))?;
            Ok(value)
        })?;
        sized(value, asked.size, room)
    }

    pub(super) fn listxattr(
        &self,
        id: NodeId,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        if self.policy.xattr == Xattr::Hidden {
            return Err(Errno::NOSYS);
        }
        let asked: GetxattrIn = request.structure()?;
        let names = self.with_attributes(id, Ok(Vec::new()), |fd| {
            let mut names = Vec::with_capacity(MAX_XATTR);
            rustix::fs::flistxattr(fd, rustix::buffer::spare_capacity(&mut names))?;
            Ok(names)
        })?;
        sized(names, asked.size, room)
    }

    /// Asks for extended attributes, which only an open file or directory has: links and special
    /// files are never opened, so there is `nothing`.
    fn with_attributes(
        &self,
        id: NodeId,
        nothing: Result<Vec<u8>, Errno>,
        ask: impl Fn(BorrowedFd<'_>) -> Result<Vec<u8>, Errno>,
    ) -> Result<Vec<u8>, Errno> {
        match self.tree.stat(id)?.kind() {
            Kind::Directory => ask(self.tree.directory(id)?.fd()),
            Kind::File => ask(self.tree.file(id)?.as_fd()),
            Kind::Symlink | Kind::Special => nothing,
        }
    }
}

/// A value for a guest that has room for `size` bytes, or asks for the length with zero.
fn sized(value: Vec<u8>, size: u32, room: usize) -> Result<Reply, Errno> {
    let len = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
    if size == 0 {
        let reply = GetxattrOut {
            size: len,
            padding: 0,
        };
        return Reply::structure(&reply, room);
    }
    if len > size {
        return Err(Errno::RANGE);
    }
    Reply::body(value, room)
}
