//! From an opcode to what is done.

use std::time::Duration;

use rustix::io::Errno;
use zerocopy::FromBytes as _;

use super::session::What;
use super::{Reply, Request, Server, now};
use crate::abi::attr::{AttrOut, StatfsOut};
use crate::abi::entry::EntryOut;
use crate::abi::opcode::Opcode;
use crate::abi::requests::{AccessIn, BatchForgetIn, ForgetIn, ForgetOne};
use crate::inode::NodeId;
use crate::share::{Name, Stat};

impl Server {
    pub(super) fn serve(
        &self,
        opcode: Opcode,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Reply, Errno> {
        let id = NodeId::from_raw(request.header.nodeid);
        match opcode {
            Opcode::Init => self.init(request, room),
            Opcode::Lookup => self.lookup(id, request.body, room),
            Opcode::Forget => self.forget(id, request),
            Opcode::BatchForget => self.forget_many(request),
            Opcode::Getattr => self.getattr(id, room),
            Opcode::Statx => self.statx(id, room),
            Opcode::Readlink => Reply::body(self.tree.readlink(id)?, room),
            Opcode::Open => self.open(What::File, request, room),
            Opcode::Opendir => self.open(What::Directory, request, room),
            Opcode::Read => self.read(id, request, room),
            Opcode::Lseek => self.lseek(id, request, room),
            Opcode::Readdir => self.list(id, request, room),
            Opcode::Readdirplus => self.list_plus(id, request, room),
            Opcode::Statfs => self.statfs(room),
            Opcode::Getxattr => self.getxattr(id, request, room),
            Opcode::Listxattr => self.listxattr(id, request, room),
            Opcode::SetupMapping => self.setup_mapping(id, request),
            Opcode::RemoveMapping => self.remove_mappings(request),
            Opcode::Access => access(request),
            // Nothing is held by a handle.
            Opcode::Release | Opcode::Releasedir => Ok(Reply::done()),
            // There is nothing to write back: the driver takes this for success, once and for all.
            Opcode::Flush | Opcode::Fsync | Opcode::Fsyncdir => Err(Errno::NOSYS),
            // Whatever it was, it is about to be answered anyway.
            Opcode::Interrupt => Ok(Reply::None),
            Opcode::Destroy => self.reset().map(|()| Reply::done()),
        }
    }

    fn lookup(&self, parent: NodeId, body: &[u8], room: usize) -> Result<Reply, Errno> {
        let name = Name::parse(body)?;
        if size_of::<EntryOut>() > room {
            // Before the guest gets a reference that it does not learn of.
            return Err(Errno::INVAL);
        }
        let directory = self.tree.directory(parent)?;
        let entry = match self.tree.lookup_in(parent, &directory, name) {
            Ok((id, stat)) => self.entry(id, &stat),
            Err(Errno::NOENT) => {
                let now = now();
                let directory = Stat::of(directory.fd())?;
                let valid = self.policy.cache.absence(parent, &directory, now);
                if valid.is_zero() {
                    return Err(Errno::NOENT);
                }
                self.absent(&directory, valid)
            }
            Err(error) => return Err(error),
        };
        Reply::structure(&entry, room)
    }

    /// What the guest is told of an inode.
    pub(super) fn entry(&self, id: NodeId, stat: &Stat) -> EntryOut {
        let now = now();
        let entry_valid = self.policy.cache.name(stat, now);
        let attr_valid = self.policy.cache.attributes(id, stat, now);
        EntryOut {
            nodeid: id.raw(),
            // Part of the id already.
            generation: 0,
            entry_valid: entry_valid.as_secs(),
            attr_valid: attr_valid.as_secs(),
            entry_valid_nsec: entry_valid.subsec_nanos(),
            attr_valid_nsec: attr_valid.subsec_nanos(),
            attr: self.attributes(stat, now),
        }
    }

    /// What the guest is told of a name that leads nowhere. The attributes mean nothing.
    fn absent(&self, directory: &Stat, valid: Duration) -> EntryOut {
        EntryOut {
            nodeid: 0,
            generation: 0,
            entry_valid: valid.as_secs(),
            attr_valid: 0,
            entry_valid_nsec: valid.subsec_nanos(),
            attr_valid_nsec: 0,
            attr: directory.attr(self.policy.owners, 0),
        }
    }

    fn forget(&self, id: NodeId, request: &Request<'_>) -> Result<Reply, Errno> {
        let asked: ForgetIn = request.structure()?;
        self.tree.forget(id, asked.nlookup);
        Ok(Reply::None)
    }

    fn forget_many(&self, request: &Request<'_>) -> Result<Reply, Errno> {
        let (asked, list): (BatchForgetIn, _) = request.split()?;
        // The list may be shorter than announced: what is there is all there is.
        for one in list
            .chunks_exact(size_of::<ForgetOne>())
            .take(asked.count as usize)
        {
            let one = ForgetOne::read_from_bytes(one).map_err(|_| Errno::INVAL)?;
            self.tree.forget(NodeId::from_raw(one.nodeid), one.nlookup);
        }
        Ok(Reply::None)
    }

    fn getattr(&self, id: NodeId, room: usize) -> Result<Reply, Errno> {
        let stat = self.tree.stat(id)?;
        let now = now();
        let valid = self.policy.cache.attributes(id, &stat, now);
        let reply = AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: self.attributes(&stat, now),
        };
        Reply::structure(&reply, room)
    }

    fn statx(&self, id: NodeId, room: usize) -> Result<Reply, Errno> {
        let stat = self.tree.stat(id)?;
        let now = now();
        let valid = self.policy.cache.attributes(id, &stat, now);
        let mut reply = stat.statx(self.policy.owners, now);
        reply.attr_valid = valid.as_secs();
        reply.attr_valid_nsec = valid.subsec_nanos();
        Reply::structure(&reply, room)
    }

    fn statfs(&self, room: usize) -> Result<Reply, Errno> {
        let space = rustix::fs::fstatvfs(self.tree.share().root())?;
        let narrow = |size: u64| u32::try_from(size).unwrap_or(4096);
        let reply = StatfsOut {
            blocks: space.f_blocks,
            bfree: space.f_bfree,
            bavail: space.f_bavail,
            files: space.f_files,
            ffree: space.f_ffree,
            bsize: narrow(space.f_bsize),
            namelen: narrow(space.f_namemax),
            frsize: narrow(space.f_frsize),
            padding: 0,
            spare: [0; 6],
        };
        Reply::structure(&reply, room)
    }
}

fn access(request: &Request<'_>) -> Result<Reply, Errno> {
    let asked: AccessIn = request.structure()?;
    if asked.mask & libc::W_OK.cast_unsigned() == 0 {
        Ok(Reply::done())
    } else {
        Err(Errno::ROFS)
    }
}
