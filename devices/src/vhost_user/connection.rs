//! A connected backend.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserHeaderFlag,
    VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use virtio_queue::QueueT;
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::EventFd;

use super::requests::Requests;
use super::{Connect, SharedRegion, TransferLimits, VhostUserError, ring, transfer};
use crate::device::{ActiveQueue, Memory};

/// How long a backend may take for one answer before it counts as dead: stopping waits for what is
/// in flight, and slow storage is no reason to give up.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Most queues a backend is asked for.
const MAX_QUEUES: u16 = 64;

/// Queues of a backend that cannot say how many it has.
const DEFAULT_QUEUES: u16 = 2;

/// What a backend needs to have files mapped.
const MAPPING: VhostUserProtocolFeatures = VhostUserProtocolFeatures::SHMEM
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::BACKEND_SEND_FD)
    .union(VhostUserProtocolFeatures::REPLY_ACK);

/// The protocol's own bit among the virtio features; no driver ever sees it.
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// A backend that answers. It serves no queue until [`start`](Self::start).
pub struct Connection {
    frontend: Frontend,
    socket: UnixStream,
    features: u64,
    protocol: VhostUserProtocolFeatures,
    queues: u16,
    /// What it asks for, when it can have files mapped.
    requests: Option<Requests>,
}

impl Connection {
    /// Connects through `connect`, and agrees on the protocol. The backend may have files mapped into
    /// `region` from then on, if it does that and knows the region by the same size.
    ///
    /// # Errors
    /// When there is no backend, it does not answer within ten seconds, or it speaks no protocol
    /// features.
    pub fn open(
        connect: &mut dyn Connect,
        region: Option<Arc<dyn SharedRegion>>,
    ) -> Result<Self, VhostUserError> {
        let stream = connect.connect().map_err(VhostUserError::Connect)?;
        limit_waits(&stream).map_err(VhostUserError::Connect)?;
        let socket = stream.try_clone().map_err(VhostUserError::Connect)?;
        let mut frontend = Frontend::from_stream(stream, MAX_QUEUES.into());
        frontend.set_owner().map_err(failed("take an owner"))?;
        let offered = frontend
            .get_features()
            .map_err(failed("name its features"))?;
        if offered & PROTOCOL_FEATURES == 0 {
            return Err(VhostUserError::Features {
                offered,
                missing: "VHOST_USER_F_PROTOCOL_FEATURES",
            });
        }
        // Acknowledged at once: protocol features are settled before the driver's are known.
        frontend
            .set_features(PROTOCOL_FEATURES)
            .map_err(failed("take its features"))?;
        let mapping = region
            .as_ref()
            .map_or(VhostUserProtocolFeatures::empty(), |_| MAPPING);
        let (protocol, queues) = agree(&mut frontend, mapping)?;
        let requests = match region.filter(|_| protocol.contains(MAPPING)) {
            Some(region) => mappings(&mut frontend, region)?,
            None => None,
        };
        Ok(Self {
            frontend,
            socket,
            features: offered & !PROTOCOL_FEATURES,
            protocol,
            queues,
            requests,
        })
    }

    /// The virtio features it offers.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// How many queues it serves.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// Whether it can have files mapped into the region that it was opened with.
    pub fn maps(&self) -> bool {
        self.requests.is_some()
    }

    /// Whether it has not hung up, as far as the host knows.
    pub fn is_alive(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        // Without a wait, so there is no signal to be interrupted by. A host that cannot tell
        // leaves it to the next request.
        poll(&mut socket, Some(&Timespec::default())).unwrap_or(0) == 0
    }

    /// Lets it serve `queues` in `memory`, from where they are. It writes to `call` to interrupt
    /// the driver and to `error` when a ring is broken. Kicks from before may be gone.
    ///
    /// # Errors
    /// When it refuses or is gone; it has to be dropped then. When guest RAM is private.
    pub fn start(
        &mut self,
        memory: &Memory,
        features: u64,
        queues: &[ActiveQueue],
        lines: &Lines<'_>,
    ) -> Result<(), VhostUserError> {
        let regions = memory
            .iter()
            .map(VhostUserMemoryRegionInfo::from_guest_region)
            .collect::<Result<Vec<_>, _>>()
            .map_err(VhostUserError::PrivateMemory)?;
        self.frontend
            .set_features(features | PROTOCOL_FEATURES)
            .map_err(failed("take the driver's features"))?;
        self.frontend
            .set_mem_table(&regions)
            .map_err(failed("map guest RAM"))?;
        for active in queues {
            self.configure(active, memory, lines)?;
        }
        for active in queues {
            self.frontend
                .set_vring_enable(active.index.into(), true)
                .map_err(failed("enable a queue"))?;
        }
        Ok(())
    }

    fn configure(
        &mut self,
        active: &ActiveQueue,
        memory: &Memory,
        lines: &Lines<'_>,
    ) -> Result<(), VhostUserError> {
        let index = usize::from(active.index);
        let frontend = &self.frontend;
        frontend
            .set_vring_num(index, active.queue.size())
            .map_err(failed("take a queue's size"))?;
        frontend
            .set_vring_addr(index, &ring::addresses(active, memory)?)
            .map_err(failed("take a queue's addresses"))?;
        frontend
            .set_vring_base(index, active.queue.next_avail())
            .map_err(failed("take a queue's position"))?;
        frontend
            .set_vring_call(index, lines.call)
            .map_err(failed("take the interrupt line"))?;
        frontend
            .set_vring_err(index, lines.error)
            .map_err(failed("take the error line"))?;
        // Last: with it, the protocol says, the queue is started.
        frontend
            .set_vring_kick(index, &active.kick)
            .map_err(failed("take a queue's kicks"))
    }

    /// Takes the queues away from it: when this returns, it touches guest memory no more. The
    /// positions of `queues` are where it left them.
    ///
    /// # Errors
    /// When it refuses or is gone; it has to be dropped then.
    pub fn stop(
        &mut self,
        memory: &Memory,
        queues: &mut [ActiveQueue],
    ) -> Result<(), VhostUserError> {
        for active in queues {
            let base = self
                .frontend
                .get_vring_base(active.index.into())
                .map_err(failed("stop a queue"))?;
            // Positions are 16 bits wide; a backend that says more has lost count.
            let base = u16::try_from(base).map_err(|_| VhostUserError::Request {
                action: "name a queue's position",
                source: vhost::Error::VhostUserProtocol(vhost::vhost_user::Error::InvalidMessage),
            })?;
            ring::stopped_at(&mut active.queue, memory, base);
        }
        Ok(())
    }

    /// What it has to remember of the driver beyond the queues, in a form of its own. Only while it
    /// serves no queue.
    ///
    /// # Errors
    /// When it has no such form, fails, is gone, or exceeds `limits`.
    pub fn save(&self, limits: TransferLimits) -> Result<Vec<u8>, VhostUserError> {
        let (reader, writer) = std::io::pipe().map_err(VhostUserError::Transfer)?;
        self.begin_transfer(VhostTransferStateDirection::SAVE, writer.into())?;
        let state = transfer::receive(reader, limits);
        // Asked after a failure as well: that ends the transfer for the backend, which would refuse
        // the next one.
        let ended = self
            .frontend
            .check_device_state()
            .map_err(failed("write its state down"));
        let state = state?;
        ended?;
        Ok(state)
    }

    /// Gives it the `state` that another one of its kind saved. Only before it serves a queue.
    ///
    /// # Errors
    /// When it does not take it, is gone, or exceeds `limits`; it has to be dropped then.
    pub fn restore(&self, state: &[u8], limits: TransferLimits) -> Result<(), VhostUserError> {
        if state.len() > limits.bytes {
            return Err(VhostUserError::StateTooLong {
                limit: limits.bytes,
            });
        }
        let (reader, writer) = std::io::pipe().map_err(VhostUserError::Transfer)?;
        self.begin_transfer(VhostTransferStateDirection::LOAD, reader.into())?;
        transfer::send(writer, state, limits)?;
        self.frontend
            .check_device_state()
            .map_err(failed("go on with a saved state"))
    }

    /// Whether it can be asked for its state at all.
    pub fn has_state(&self) -> bool {
        self.protocol
            .contains(VhostUserProtocolFeatures::DEVICE_STATE)
    }

    /// Gives it its end of the pipe.
    fn begin_transfer(
        &self,
        direction: VhostTransferStateDirection,
        end: OwnedFd,
    ) -> Result<(), VhostUserError> {
        if !self.has_state() {
            return Err(VhostUserError::NoDeviceState);
        }
        // The only phase there is. A backend may answer with a pipe of its own; none does.
        let phase = VhostTransferStatePhase::STOPPED;
        let other = self
            .frontend
            .set_device_state_fd(direction, phase, end)
            .map_err(failed("take a pipe for its state"))?;
        match other {
            None => Ok(()),
            Some(_) => Err(VhostUserError::Request {
                action: "take a pipe for its state",
                source: vhost::Error::VhostUserProtocol(vhost::vhost_user::Error::InvalidMessage),
            }),
        }
    }

    /// Sets the positions of queues whose backend is gone, so that everything it left unanswered
    /// is served again.
    pub fn recover(memory: &Memory, queues: &mut [ActiveQueue]) {
        for active in queues {
            ring::died_at(&mut active.queue, memory);
        }
    }
}

/// The socket: it hangs up when the backend dies.
impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What a backend signals, shared by all queues of a device.
pub struct Lines<'a> {
    /// Interrupts the driver.
    pub call: &'a EventFd,
    /// Reports a broken ring.
    pub error: &'a EventFd,
}

fn limit_waits(stream: &UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))
}

/// Agrees on protocol features. Returns them, and how many queues the backend serves.
fn agree(
    frontend: &mut Frontend,
    mapping: VhostUserProtocolFeatures,
) -> Result<(VhostUserProtocolFeatures, u16), VhostUserError> {
    let offered = frontend
        .get_protocol_features()
        .map_err(failed("name its protocol features"))?;
    let mut wanted = offered
        & (VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::DEVICE_STATE);
    if offered.contains(mapping) {
        wanted |= mapping;
    }
    frontend
        .set_protocol_features(wanted)
        .map_err(failed("take its protocol features"))?;
    if wanted.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    if !wanted.contains(VhostUserProtocolFeatures::MQ) {
        return Ok((wanted, DEFAULT_QUEUES));
    }
    let queues = frontend
        .get_queue_num()
        .map_err(failed("count its queues"))?;
    let queues = u16::try_from(queues).unwrap_or(MAX_QUEUES).min(MAX_QUEUES);
    Ok((wanted, queues))
}

/// Takes requests of a backend that knows `region`.
fn mappings(
    frontend: &mut Frontend,
    region: Arc<dyn SharedRegion>,
) -> Result<Option<Requests>, VhostUserError> {
    let known = frontend
        .get_shmem_config()
        .map_err(failed("name its regions of shared memory"))?;
    let size = known.memory_sizes.get(usize::from(region.id()));
    if size != Some(&region.bytes()) {
        tracing::warn!(
            ?size,
            expected = region.bytes(),
            "a backend has no such window; files are not mapped"
        );
        return Ok(None);
    }
    Requests::serve(frontend, region).map(Some)
}

pub(super) fn failed(action: &'static str) -> impl Fn(vhost::Error) -> VhostUserError {
    move |source| VhostUserError::Request { action, source }
}
