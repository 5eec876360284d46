//! Requests between their chain and their status.

use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::request::{Command, ID_BYTES, Layout, Limits, Parsed, Status};
use crate::device::{ActiveQueue, DeviceId, Memory};
use crate::disk::{Completion, DiskEngine, DiskRequest, PreservingEngine, SubmitError};
use crate::fault::QueueFault;
use crate::log_limit::LogLimit;

/// What a queue needs to know of its disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) id: DeviceId,
    pub(super) limits: Limits,
    /// What GET_ID answers, padded with zeroes.
    pub(super) serial: [u8; ID_BYTES],
}

/// A chain whose I/O is in flight.
#[derive(Debug, Clone, Copy)]
struct Pending {
    status: GuestAddress,
    /// Bytes written to the chain when it succeeds, the status byte left out.
    written: u32,
}

/// The side of the queue that has no ring: requests between their chain and their status.
pub(super) struct Requests {
    pub(super) disk: Disk,
    queue: u16,
    pub(super) engine: PreservingEngine,
    /// By head index.
    pending: Vec<Option<Pending>>,
    layout: Layout,
    /// Chains whose status is written, to be put on the used ring: head and bytes written.
    pub(super) finished: Vec<(u16, u32)>,
    completions: Vec<Completion>,
    log: LogLimit,
}

impl Requests {
    /// Room for as many requests as the queue has heads.
    pub(super) fn new(disk: Disk, engine: PreservingEngine, active: &ActiveQueue) -> Self {
        let size = usize::from(active.queue.size());
        Self {
            disk,
            queue: active.index,
            engine,
            pending: vec![None; size],
            layout: Layout::default(),
            finished: Vec::with_capacity(size),
            completions: Vec::with_capacity(size),
            log: LogLimit::new(),
        }
    }

    /// Reads one chain and submits its I/O, or finishes it at once.
    pub(super) fn begin(
        &mut self,
        memory: &Memory,
        chain: DescriptorChain<&Memory>,
    ) -> Result<(), QueueFault> {
        let queue = self.queue;
        let head = chain.head_index();
        match self.pending.get(usize::from(head)) {
            Some(None) => {}
            // The kernel still works on this head's buffers.
            Some(Some(_)) => {
                let reason = "head made available again while in flight";
                return Err(QueueFault::Malformed { queue, reason });
            }
            None => {
                let reason = "head beyond the queue";
                return Err(QueueFault::Malformed { queue, reason });
            }
        }
        let parsed = self.layout.parse(queue, memory, chain, &self.disk.limits)?;
        let request = match parsed.command {
            Command::Read { offset, .. } => DiskRequest::Read {
                offset,
                segments: &self.layout.writable,
            },
            Command::Write { offset } => DiskRequest::Write {
                offset,
                segments: &self.layout.readable,
            },
            Command::Flush => DiskRequest::Flush,
            Command::Clear => DiskRequest::Clear {
                extents: &self.layout.extents,
            },
            Command::GetId => {
                let scattered = self.layout.scatter(memory, &self.disk.serial);
                scattered.map_err(|source| QueueFault::Memory { queue, source })?;
                return self.finish(memory, (head, ID_LEN), parsed.status, Status::Ok);
            }
            Command::Refuse(status) => {
                return self.finish(memory, (head, 0), parsed.status, status);
            }
        };
        match self.engine.submit(head, request) {
            Ok(()) => {}
            // It need not be the driver's mistake: a program of the guest may read and write past its
            // cache what it has mapped in the window of a share.
            Err(SubmitError::Memory { .. }) => {
                return self.finish(memory, (head, 0), parsed.status, Status::IoError);
            }
            Err(SubmitError::Busy { .. } | SubmitError::NoSuchTag { .. }) => {
                let reason = "head cannot be used";
                return Err(QueueFault::Malformed { queue, reason });
            }
        }
        if let Some(pending) = self.pending.get_mut(usize::from(head)) {
            *pending = Some(Pending::of(&parsed));
        }
        Ok(())
    }

    /// Starts what was submitted.
    pub(super) fn commit(&mut self) -> Result<(), QueueFault> {
        self.engine.commit().map_err(|error| {
            tracing::error!(device = %self.disk.id, %error, engine = self.engine.name(), "disk engine failed");
            QueueFault::Malformed {
                queue: self.queue,
                reason: "host disk engine failed",
            }
        })
    }

    /// Writes the status of every request that the engine finished.
    pub(super) fn reap(&mut self, memory: &Memory) -> Result<(), QueueFault> {
        let mut completions = std::mem::take(&mut self.completions);
        self.engine.reap(&mut completions);
        let finished = completions.drain(..).try_for_each(|done| {
            let pending = self.pending.get_mut(usize::from(done.tag)).and_then(Option::take);
            let Some(pending) = pending else {
                return Ok(());
            };
            match done.result {
                Ok(()) => self.finish(memory, (done.tag, pending.written), pending.status, Status::Ok),
                Err(error) => {
                    if let Some(count) = self.log.next() {
                        tracing::warn!(device = %self.disk.id, %error, count, "disk request failed on the host");
                    }
                    self.finish(memory, (done.tag, 0), pending.status, Status::IoError)
                }
            }
        });
        self.completions = completions;
        finished
    }

    /// Writes the status byte; the chain goes to the used ring with the batch.
    fn finish(
        &mut self,
        memory: &Memory,
        (head, written): (u16, u32),
        address: GuestAddress,
        status: Status,
    ) -> Result<(), QueueFault> {
        let queue = self.queue;
        let stored = memory.write_obj(status.byte(), address);
        stored.map_err(|source| QueueFault::Memory { queue, source })?;
        self.finished.push((head, written.saturating_add(1)));
        Ok(())
    }
}

/// Bytes that GET_ID writes.
const ID_LEN: u32 = 20;
const _: () = assert!(ID_LEN as usize == ID_BYTES);

impl Pending {
    fn of(parsed: &Parsed) -> Self {
        let written = match parsed.command {
            Command::Read { len, .. } => len,
            _ => 0,
        };
        Self {
            status: parsed.status,
            written,
        }
    }
}
