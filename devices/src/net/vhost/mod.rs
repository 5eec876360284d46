//! Pairs of queues that the host's kernel serves (`drivers/vhost/net.c`): frames pass between guest
//! memory and the tap without a thread of ours.
//!
//! The kernel takes kicks from the queue's own eventfd and fires the interrupt line itself. What
//! looks at frames or holds them up is not possible then: no DHCP, no rate limits, no counters. The
//! control queue stays with the card.

mod sys;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::sync::Arc;

use vhost::vhost_kern::VhostKernBackend;
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueT as _;
use vm_memory::{Address as _, GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

use super::session::{PairQueues, Session};
use super::tap::Tap;
use crate::device::{ActiveQueue, Memory};
use crate::vhost_user::ring;

/// What the kernel has to know of: everything a driver can take that changes the rings.
const NEEDED_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_NET_F_MRG_RXBUF
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// An open `/dev/vhost-net`: serves one pair of queues.
#[derive(Debug)]
pub struct VhostNet(File);

/// Why the kernel does not serve a pair.
#[derive(Debug, thiserror::Error)]
pub enum VhostNetError {
    /// The descriptor is no such device, or the kernel refuses something.
    #[error("Kernel's vhost-net failed to {action}")]
    Refused {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: vhost::Error,
    },
    /// The kernel is too old.
    #[error(
        "Kernel's vhost-net has features {found:#x}, expected {NEEDED_FEATURES:#x} among them; use a newer kernel or no vhost"
    )]
    Features {
        /// What it has.
        found: u64,
    },
}

impl VhostNet {
    /// Takes over an open `/dev/vhost-net`, for this process.
    ///
    /// # Errors
    /// When it is something else, or lacks a feature that the card offers.
    pub fn new(file: File) -> Result<Self, VhostNetError> {
        let vhost = Self(file);
        let memory = Memory::new();
        let kernel = vhost.kernel(&memory);
        kernel.set_owner().map_err(refused("take an owner"))?;
        let found = kernel
            .get_features()
            .map_err(refused("name its features"))?;
        if found & NEEDED_FEATURES != NEEDED_FEATURES {
            return Err(VhostNetError::Features { found });
        }
        Ok(vhost)
    }

    fn kernel<'a>(&'a self, memory: &'a Memory) -> Kernel<'a> {
        Kernel {
            vhost: self,
            memory,
        }
    }
}

fn refused(action: &'static str) -> impl Fn(vhost::Error) -> VhostNetError {
    move |source| VhostNetError::Refused { action, source }
}

/// The kernel's side of a pair, with the memory that it works on.
struct Kernel<'a> {
    vhost: &'a VhostNet,
    memory: &'a Memory,
}

impl AsRawFd for Kernel<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.vhost.0.as_raw_fd()
    }
}

impl<'a> VhostKernBackend for Kernel<'a> {
    type AS = &'a Memory;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }
}

/// The eventfds of a session that the kernel writes to.
#[derive(Debug)]
pub(super) struct Lines {
    /// Interrupts the driver.
    pub(super) call: EventFd,
    /// Says that a ring is broken.
    pub(super) error: EventFd,
}

/// A pair that the kernel serves. Dropping it ends that.
pub(super) struct KernelPair {
    session: Arc<Session>,
    vhost: Arc<VhostNet>,
    /// Stays open while the kernel uses it.
    _tap: Arc<Tap>,
    queues: Option<PairQueues>,
}

impl KernelPair {
    /// Hands the pair to the kernel, which goes on where the queues are.
    pub(super) fn start(
        session: &Arc<Session>,
        vhost: &Arc<VhostNet>,
        tap: &Arc<Tap>,
        queues: PairQueues,
    ) -> io::Result<Self> {
        let pair = Self {
            session: session.clone(),
            vhost: vhost.clone(),
            _tap: tap.clone(),
            queues: Some(queues),
        };
        pair.hand_over(tap).map_err(io::Error::other)?;
        for active in pair.both() {
            // A kick from before is gone. Fails only when one is pending already.
            let _ = active.kick.write(1);
        }
        Ok(pair)
    }

    fn both(&self) -> impl Iterator<Item = &ActiveQueue> {
        self.queues
            .iter()
            .flat_map(|queues| [&queues.rx, &queues.tx])
    }

    fn hand_over(&self, tap: &Tap) -> Result<(), VhostNetError> {
        let memory = &self.session.memory;
        let kernel = self.vhost.kernel(memory);
        kernel
            .set_features(self.session.features & NEEDED_FEATURES)
            .map_err(refused("take the driver's features"))?;
        let regions: Vec<_> = memory.iter().map(region).collect();
        kernel
            .set_mem_table(&regions)
            .map_err(refused("take guest RAM"))?;
        for (index, active) in self.both().enumerate() {
            self.describe(&kernel, index, active)?;
        }
        for (index, _) in self.both().enumerate() {
            sys::set_backend(&kernel, index, Some(tap.as_fd()))
                .map_err(|error| refused("use the tap")(vhost::Error::IoctlError(error)))?;
        }
        Ok(())
    }

    /// Tells the kernel of one queue: the receive queue is its number 0, the other number 1.
    fn describe(
        &self,
        kernel: &Kernel<'_>,
        index: usize,
        active: &ActiveQueue,
    ) -> Result<(), VhostNetError> {
        let queue = &active.queue;
        let lines = self.session.lines.as_ref();
        // The card has lines whenever it has a `VhostNet`.
        let lines = lines
            .ok_or(vhost::Error::InvalidOperation)
            .map_err(refused("interrupt"))?;
        let place = refused("take a queue's place");
        kernel
            .set_vring_num(index, queue.size())
            .map_err(refused("take a queue's size"))?;
        kernel
            .set_vring_base(index, queue.next_avail())
            .map_err(refused("take a queue's position"))?;
        let rings = ring::addresses(active, kernel.memory)
            .map_err(|error| place(vhost::Error::IOError(io::Error::other(error))))?;
        sys::set_addresses(kernel, index, &rings)
            .map_err(|error| place(vhost::Error::IoctlError(error)))?;
        kernel
            .set_vring_err(index, &lines.error)
            .and_then(|()| kernel.set_vring_call(index, &lines.call))
            .and_then(|()| kernel.set_vring_kick(index, &active.kick))
            .map_err(refused("take a queue's eventfds"))
    }

    /// Has the kernel leave the queues alone; it has finished with every frame when this returns.
    pub(super) fn halt(&self) -> io::Result<()> {
        let kernel = self.vhost.kernel(&self.session.memory);
        for index in 0..2 {
            sys::set_backend(&kernel, index, None)?;
        }
        Ok(())
    }

    /// Takes the queues back, where the kernel left them.
    pub(super) fn stop(mut self) -> io::Result<PairQueues> {
        self.halt()?;
        let memory = &self.session.memory;
        let kernel = self.vhost.kernel(memory);
        let mut queues = self.queues.take().ok_or(io::ErrorKind::NotFound)?;
        for (index, active) in [&mut queues.rx, &mut queues.tx].into_iter().enumerate() {
            let next = kernel.get_vring_base(index).map_err(io::Error::other)?;
            let next = u16::try_from(next).map_err(io::Error::other)?;
            ring::stopped_at(&mut active.queue, memory, next);
        }
        Ok(queues)
    }
}

impl Drop for KernelPair {
    fn drop(&mut self) {
        // Guest memory may go away next. Whoever stopped the pair has seen an error already.
        let _ = self.halt();
    }
}

fn region(region: &vm_memory::GuestRegionMmap<()>) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: region.start_addr().raw_value(),
        memory_size: region.len(),
        userspace_addr: u64::try_from(region.as_ptr().addr()).unwrap_or_default(),
        ..Default::default()
    }
}
