//! One backend.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vhost::vhost_user::message::*;
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{FileOffset, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::{Backends, Behaviour, Remembering};
use crate::device::Memory;

const QUEUES: u32 = 4;
const MAX_QUEUE_SIZE: u16 = 1024;
const REQUEST_HEADER: usize = 40;
const REPLY_HEADER: u32 = 16;

const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// A backend: guest memory and rings, as the frontend described them.
pub(super) struct Server {
    epoll: Arc<Epoll>,
    backends: Backends,
    memory: Memory,
    /// Our addresses for the frontend's: its start, its length, the guest's start.
    table: Vec<(u64, u64, u64)>,
    event_idx: bool,
    rings: BTreeMap<u32, Ring>,
    /// The end of a pipe, of a transfer that is under way.
    transfer: Option<(VhostTransferStateDirection, File)>,
}

struct Ring {
    queue: Queue,
    kick: Option<File>,
    call: Option<File>,
    error: Option<File>,
    enabled: bool,
}

/// A ring that a driver broke.
struct Broken;

impl Server {
    pub(super) fn new(epoll: Arc<Epoll>, backends: Backends) -> Self {
        Self {
            epoll,
            backends,
            memory: Memory::new(),
            table: Vec::new(),
            event_idx: false,
            rings: BTreeMap::new(),
            transfer: None,
        }
    }

    /// Serves ring number `index` after a kick.
    pub(super) fn kicked(&mut self, index: u64) {
        let ring = u32::try_from(index)
            .ok()
            .and_then(|index| self.rings.get_mut(&index));
        let Some(ring) = ring else { return };
        if let Some(kick) = &mut ring.kick {
            // Fails when the kick was taken back.
            let _ = kick.read(&mut [0; 8]);
        }
        if ring.enabled && serve(ring, &self.memory, &self.backends).is_err() {
            ring.enabled = false;
            fire(&mut ring.error);
        }
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        if index >= QUEUES {
            return Err(Error::InvalidParam);
        }
        let fresh = || Ring {
            queue: Queue::new(MAX_QUEUE_SIZE).unwrap(),
            kick: None,
            call: None,
            error: None,
            enabled: false,
        };
        Ok(self.rings.entry(index).or_insert_with(fresh))
    }

    fn guest_address(&self, ours: u64) -> Result<GuestAddress> {
        self.table
            .iter()
            .find(|(start, length, _)| (*start..start + length).contains(&ours))
            .map(|(start, _, guest)| GuestAddress(guest + (ours - start)))
            .ok_or(Error::InvalidParam)
    }
}

fn fire(line: &mut Option<File>) {
    if let Some(line) = line {
        line.write_all(&1u64.to_ne_bytes()).unwrap();
    }
}

fn serve(ring: &mut Ring, memory: &Memory, backends: &Backends) -> std::result::Result<(), Broken> {
    let queue = &mut ring.queue;
    loop {
        queue.disable_notification(memory).map_err(|_| Broken)?;
        let chains: Vec<_> = queue.iter(memory).map_err(|_| Broken)?.collect();
        for chain in chains {
            let head = chain.head_index();
            let mut header = [0; REQUEST_HEADER];
            let mut reader = chain.clone().reader(memory).map_err(|_| Broken)?;
            reader.read_exact(&mut header).map_err(|_| Broken)?;
            if backends.take() == Behaviour::Swallow {
                continue;
            }
            let mut writer = chain.writer(memory).map_err(|_| Broken)?;
            let mut reply = REPLY_HEADER.to_le_bytes().to_vec();
            reply.extend([0; 4]);
            reply.extend(&header[8..16]);
            let room = writer.available_bytes() >= reply.len();
            if room {
                writer.write_all(&reply).map_err(|_| Broken)?;
            }
            let written = if room { REPLY_HEADER } else { 0 };
            queue.add_used(memory, head, written).map_err(|_| Broken)?;
        }
        if queue.needs_notification(memory).map_err(|_| Broken)? {
            fire(&mut ring.call);
        }
        if !queue.enable_notification(memory).map_err(|_| Broken)? {
            return Ok(());
        }
    }
}

const NOT_HERE: Error = Error::InvalidOperation("this backend does not do that");

impl VhostUserBackendReqHandlerMut for Server {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        Err(NOT_HERE)
    }

    fn reset_device(&mut self) -> Result<()> {
        Err(NOT_HERE)
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.event_idx = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let ranges = regions.iter().zip(files).map(|(region, file)| {
            (
                GuestAddress(region.guest_phys_addr),
                usize::try_from(region.memory_size).unwrap(),
                Some(FileOffset::new(file, region.mmap_offset)),
            )
        });
        self.memory = Memory::from_ranges_with_files(ranges).map_err(|_| Error::InvalidParam)?;
        self.table = regions
            .iter()
            .map(|region| (region.user_addr, region.memory_size, region.guest_phys_addr))
            .collect();
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        let queue = &mut self.ring(index)?.queue;
        queue.try_set_size(size).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let [descriptor, used, available] = [descriptor, used, available];
        let (descriptor, used, available) = (
            self.guest_address(descriptor)?,
            self.guest_address(used)?,
            self.guest_address(available)?,
        );
        let event_idx = self.event_idx;
        let queue = &mut self.ring(index)?.queue;
        queue.set_event_idx(event_idx);
        queue
            .try_set_desc_table_address(descriptor)
            .and_then(|()| queue.try_set_used_ring_address(used))
            .and_then(|()| queue.try_set_avail_ring_address(available))
            .map_err(|_| Error::InvalidParam)?;
        queue.set_ready(true);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        let memory = self.memory.clone();
        let queue = &mut self.ring(index)?.queue;
        let used = queue
            .used_idx(&memory, std::sync::atomic::Ordering::Acquire)
            .map_err(|_| Error::InvalidParam)?;
        queue.set_next_avail(base);
        queue.set_next_used(used.0);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.ring(index)?;
        ring.enabled = false;
        let base = ring.queue.next_avail();
        if let Some(kick) = self.rings.remove(&index).and_then(|ring| ring.kick) {
            let nothing = EpollEvent::default();
            let fd = kick.as_raw_fd();
            self.epoll
                .ctl(ControlOperation::Delete, fd, nothing)
                .unwrap();
        }
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        if let Some(kick) = &fd {
            let event = EpollEvent::new(EventSet::IN, index.into());
            self.epoll
                .ctl(ControlOperation::Add, kick.as_raw_fd(), event)
                .unwrap();
        }
        self.ring(index.into())?.kick = fd;
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(index.into())?.call = fd;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(index.into())?.error = fd;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut features = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        let notes = self.backends.notes();
        if notes.window.is_some() {
            features |= VhostUserProtocolFeatures::BACKEND_REQ
                | VhostUserProtocolFeatures::BACKEND_SEND_FD
                | VhostUserProtocolFeatures::SHMEM;
        }
        Ok(match notes.remembering {
            Remembering::Never => features,
            _ => features | VhostUserProtocolFeatures::DEVICE_STATE,
        })
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES.into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let mut notes = self.backends.notes();
        if notes
            .fails_to_enable
            .take_if(|fails| *fails == index)
            .is_some()
        {
            drop(notes);
            let before: Vec<u32> = self.rings.range(..index).map(|(ring, _)| *ring).collect();
            before.into_iter().for_each(|ring| self.kicked(ring.into()));
            return Err(NOT_HERE);
        }
        drop(notes);
        self.ring(index)?.enabled = enable;
        Ok(())
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(NOT_HERE)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(NOT_HERE)
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(NOT_HERE)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(NOT_HERE)
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(NOT_HERE)
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(NOT_HERE)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(NOT_HERE)
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        Err(NOT_HERE)
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(NOT_HERE)
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        mut pipe: File,
    ) -> Result<Option<File>> {
        let notes = self.backends.notes();
        let saves = matches!(direction, VhostTransferStateDirection::SAVE);
        if saves && notes.remembering != Remembering::Stuck {
            // Shorter than what a pipe holds, so nobody has to read meanwhile.
            let state = notes.state.as_deref().unwrap_or(b"a state");
            return match pipe.write_all(state) {
                Ok(()) => Ok(None),
                Err(error) => Err(Error::ReqHandlerError(error)),
            };
        }
        self.transfer = Some((direction, pipe));
        Ok(None)
    }

    fn check_device_state(&mut self) -> Result<()> {
        let transfer = self.transfer.take();
        let mut notes = self.backends.notes();
        if notes.remembering != Remembering::Faithful {
            return Err(NOT_HERE);
        }
        if let Some((VhostTransferStateDirection::LOAD, mut pipe)) = transfer {
            let mut state = Vec::new();
            pipe.read_to_end(&mut state)
                .map_err(Error::ReqHandlerError)?;
            notes.state = Some(state);
        }
        Ok(())
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        let window = self.backends.notes().window.ok_or(NOT_HERE)?;
        Ok(VhostUserShMemConfig::new(1, &[window]))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(NOT_HERE)
    }
}
