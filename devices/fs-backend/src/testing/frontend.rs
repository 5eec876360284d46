//! A frontend with a driver in it: what a machine and its guest would do.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{Ordering, fence};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend as Protocol, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::abi::{InHeader, OUT_HEADER_LEN, OutHeader};

/// Descriptors of a queue.
const SIZE: u16 = 16;
/// Guest memory, in bytes.
const MEMORY: usize = 16 << 20;
/// Memory of one queue: rings, a request, a reply.
const QUEUE: u64 = 4 << 20;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const REQUEST: u64 = 0x10000;
const REPLY: u64 = 0x10_0000;
/// How long a reply is waited for.
const PATIENCE_MS: i32 = 10_000;

/// Why nothing comes of a request.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The protocol does not work.
    #[error("The backend cannot be set up")]
    Protocol(#[from] vhost::Error),
    /// The host does not play along.
    #[error("The host refuses")]
    Host(#[from] io::Error),
    /// Guest memory does not.
    #[error("Guest memory is out of reach")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// There was no reply in time.
    #[error("The backend does not answer")]
    Silent,
    /// It is not what was agreed.
    #[error("The reply is malformed: {0}")]
    Malformed(&'static str),
}

impl From<Errno> for TestError {
    fn from(error: Errno) -> Self {
        Self::Host(error.into())
    }
}

struct Queue {
    base: u64,
    kick: EventFd,
    call: EventFd,
    next: u16,
    /// How often it was kicked.
    kicks: u64,
}

/// How driver and device tell each other when they want to be notified (virtio 1.2 §2.7.7, §2.7.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    /// The driver kicks for each request, wanted or not.
    Always,
    /// By the flags of the rings.
    Flags,
    /// By an index: `VIRTIO_F_EVENT_IDX`.
    EventIndex,
}

/// What becomes of a thread that reads the event of a kick when there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// It waits: the event of slotvmm's own frontend.
    Wait,
    /// It is told so: the event of others.
    Return,
}

/// A frontend, and the driver of its guest.
pub struct Frontend {
    /// The protocol, for what is not done here.
    pub protocol: Protocol,
    memory: GuestMemoryMmap,
    notification: Notification,
    queues: Vec<Queue>,
}

impl Frontend {
    /// Sets up a backend with a high-priority queue and one for requests, as slotvmm does.
    ///
    /// # Errors
    /// When it does not agree, or the host refuses.
    pub fn new(connection: UnixStream) -> Result<Self, TestError> {
        Self::with(connection, Notification::Always, Reads::Wait)
    }

    /// As [`Self::new`], with a driver and kicks of another kind.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(
        connection: UnixStream,
        notification: Notification,
        reads: Reads,
    ) -> Result<Self, TestError> {
        let mut protocol = Protocol::from_stream(connection, 2);
        protocol.set_owner()?;
        let mut features = protocol.get_features()?;
        if notification != Notification::EventIndex {
            features &= !(1 << VIRTIO_RING_F_EVENT_IDX);
        }
        protocol.set_features(features)?;
        let offered = protocol.get_protocol_features()?;
        protocol.set_protocol_features(offered)?;
        if offered.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            protocol.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        let memory = memory()?;
        let mut frontend = Self {
            protocol,
            memory,
            notification,
            queues: Vec::new(),
        };
        let regions: Vec<_> = frontend
            .memory
            .iter()
            .map(VhostUserMemoryRegionInfo::from_guest_region)
            .collect::<Result<_, _>>()?;
        frontend.protocol.set_mem_table(&regions)?;
        for index in 0..2 {
            frontend.add_queue(index, reads)?;
        }
        Ok(frontend)
    }

    fn add_queue(&mut self, index: usize, reads: Reads) -> Result<(), TestError> {
        let base = QUEUE * index as u64;
        let queue = Queue {
            base,
            kick: kick(reads)?,
            call: EventFd::new(EFD_NONBLOCK)?,
            next: 0,
            kicks: 0,
        };
        let host = |offset| {
            let address = self.memory.get_host_address(GuestAddress(base + offset));
            address.map(|address| address.addr() as u64)
        };
        let rings = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: host(0)?,
            used_ring_addr: host(USED)?,
            avail_ring_addr: host(AVAIL)?,
            log_addr: None,
        };
        self.protocol.set_vring_num(index, SIZE)?;
        self.protocol.set_vring_addr(index, &rings)?;
        self.protocol.set_vring_base(index, 0)?;
        self.protocol.set_vring_call(index, &queue.call)?;
        self.protocol.set_vring_kick(index, &queue.kick)?;
        self.protocol.set_vring_enable(index, true)?;
        self.queues.push(queue);
        Ok(())
    }

    /// Sends a request on the request queue, with room for `room` bytes after the reply's header.
    ///
    /// # Errors
    /// When there is no reply, or a malformed one. What the backend answers is the inner result.
    pub fn ask(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        room: u32,
    ) -> Result<Result<Vec<u8>, Errno>, TestError> {
        let len = u32::try_from(size_of::<InHeader>() + body.len());
        let header = InHeader {
            len: len.unwrap_or(u32::MAX),
            opcode,
            unique: 42,
            nodeid: node,
            uid: 0,
            gid: 0,
            pid: 1,
            total_extlen: 0,
            padding: 0,
        };
        let message = [header.as_bytes(), body].concat();
        let reply = self.exchange(1, &message, room + 16)?;
        let (header, body) =
            OutHeader::read_from_prefix(&reply).map_err(|_| TestError::Malformed("too short"))?;
        if header.len as usize != reply.len() || header.unique != 42 {
            return Err(TestError::Malformed("another length, or number"));
        }
        debug_assert_eq!(size_of_val(&header), OUT_HEADER_LEN);
        Ok(match header.error {
            0 => Ok(body.to_vec()),
            error => Err(Errno::from_raw_os_error(error.saturating_neg())),
        })
    }

    /// How often a queue was kicked so far.
    pub fn kicks(&self, queue: usize) -> u64 {
        self.queues.get(queue).map_or(0, |queue| queue.kicks)
    }

    /// Has the backend serve a queue, or not.
    ///
    /// # Errors
    /// When it does not agree.
    pub fn enable(&mut self, queue: usize, enabled: bool) -> Result<(), TestError> {
        Ok(self.protocol.set_vring_enable(queue, enabled)?)
    }

    /// Has the backend stop serving a queue, and begin again with another event for its kicks.
    ///
    /// # Errors
    /// When it does not agree.
    pub fn serve_anew(&mut self, index: usize, reads: Reads) -> Result<(), TestError> {
        let base = self.protocol.get_vring_base(index)?;
        let queue = self.queues.get_mut(index).ok_or(TestError::Silent)?;
        queue.kick = kick(reads)?;
        let base = u16::try_from(base).map_err(|_| TestError::Malformed("no position"))?;
        self.protocol.set_vring_base(index, base)?;
        self.protocol.set_vring_call(index, &queue.call)?;
        self.protocol.set_vring_kick(index, &queue.kick)?;
        self.enable(index, true)
    }

    /// How many kicks of a queue nobody has read, and reads them. Waits for one where reads wait.
    pub fn unread_kicks(&self, queue: usize) -> u64 {
        let queue = self.queues.get(queue);
        queue.and_then(|queue| queue.kick.read().ok()).unwrap_or(0)
    }

    /// Puts any bytes into a queue, with a buffer of `room` bytes behind, and waits until they are
    /// given back; returns what was written.
    ///
    /// # Errors
    /// When they are not given back.
    pub fn exchange(
        &mut self,
        queue: usize,
        message: &[u8],
        room: u32,
    ) -> Result<Vec<u8>, TestError> {
        let queue = self.queues.get_mut(queue).ok_or(TestError::Silent)?;
        let at = |offset| GuestAddress(queue.base + offset);
        self.memory.write_slice(message, at(REQUEST))?;
        let request_len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let next = u16::from(room > 0);
        self.memory
            .write_obj((queue.base + REQUEST).to_le(), at(0))?;
        self.memory.write_obj(request_len.to_le(), at(8))?;
        self.memory.write_obj(next.to_le(), at(12))?;
        self.memory.write_obj(1_u16.to_le(), at(14))?;
        self.memory
            .write_obj((queue.base + REPLY).to_le(), at(16))?;
        self.memory.write_obj(room.to_le(), at(24))?;
        self.memory.write_obj(2_u16.to_le(), at(28))?;
        let slot = u64::from(queue.next % SIZE);
        self.memory
            .write_obj(0_u16.to_le(), at(AVAIL + 4 + 2 * slot))?;
        // Interrupt when this one is answered.
        self.memory
            .write_obj(queue.next.to_le(), at(AVAIL + 4 + 2 * u64::from(SIZE)))?;
        queue.next = queue.next.wrapping_add(1);
        self.memory
            .store(queue.next.to_le(), at(AVAIL + 2), Ordering::Release)?;
        // What the device wants is read after it can see the request.
        fence(Ordering::SeqCst);
        let wanted = match self.notification {
            Notification::Always => true,
            Notification::Flags => {
                let flags: u16 = self.memory.load(at(USED), Ordering::Acquire)?;
                u16::from_le(flags) & 1 == 0
            }
            Notification::EventIndex => {
                let end = at(USED + 4 + 8 * u64::from(SIZE));
                let event: u16 = self.memory.load(end, Ordering::Acquire)?;
                queue.next.wrapping_sub(u16::from_le(event)) == 1
            }
        };
        if wanted {
            queue.kicks += 1;
            queue.kick.write(1)?;
        }
        loop {
            let used: u16 = self.memory.load(at(USED + 2), Ordering::Acquire)?;
            if u16::from_le(used) == queue.next {
                break;
            }
            wait(&queue.call)?;
        }
        let len: u32 = self.memory.read_obj(at(USED + 4 + 8 * slot + 4))?;
        if len > room {
            return Err(TestError::Malformed("longer than its room"));
        }
        let mut reply = vec![0; len as usize];
        self.memory.read_slice(&mut reply, at(REPLY))?;
        Ok(reply)
    }
}

fn memory() -> Result<GuestMemoryMmap, TestError> {
    let file: OwnedFd = memfd_create("guest", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, MEMORY as u64)?;
    let file = FileOffset::new(file.into(), 0);
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), MEMORY, Some(file))])
        .map_err(|error| TestError::Host(io::Error::other(error)))
}

fn kick(reads: Reads) -> io::Result<EventFd> {
    EventFd::new(match reads {
        Reads::Wait => 0,
        Reads::Return => EFD_NONBLOCK,
    })
}

/// Waits for an event, longer than a backend that is alive takes on any machine.
fn wait(event: &EventFd) -> Result<(), TestError> {
    let epoll = Epoll::new()?;
    let interest = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)?;
    let mut events = [EpollEvent::default()];
    if epoll.wait(PATIENCE_MS, &mut events)? == 0 {
        return Err(TestError::Silent);
    }
    event.read()?;
    Ok(())
}
