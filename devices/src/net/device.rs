//! The card as the transport sees it.

use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_S_LINK_UP,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueT;

use super::pair::{Pair, PairHost};
use super::ring::Ring;
use super::rx::{Buffers, Rx};
use super::tx::Tx;
use super::{NetConfig, NetCounters, NetStateV1, Offloads, QUEUE_SIZE, Tap};
use crate::device::{
    ActivateError, Activation, ActiveQueue, DeviceError, DeviceId, DeviceKind, DeviceSpec, Stopped,
    VirtioDevice,
};
use crate::log_limit::LogLimit;
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::worker::Worker;

/// Index of the receive queue of the first pair (§5.1.2).
const RX_QUEUE: u16 = 0;
/// Index of the transmit queue of the first pair.
const TX_QUEUE: u16 = 1;
/// Pairs of queues. More of them need `VIRTIO_NET_F_MQ` and a control queue, and a tap queue and a
/// thread each.
const QUEUE_PAIRS: u16 = 1;

/// Lowest MTU the standard allows (§5.1.4.1).
const MIN_MTU: u16 = 68;

const FEATURES: [u32; 14] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MAC,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_VERSION_1,
    // Offered only when the configuration names one; masked out otherwise.
    VIRTIO_NET_F_MTU,
];

/// A virtio network card.
pub struct Net {
    id: DeviceId,
    spec: DeviceSpec,
    config_space: [u8; 12],
    tap: Arc<Tap>,
    counters: Arc<NetCounters>,
    faults: LogLimit,
    worker: Option<Worker<Pair>>,
}

impl Net {
    /// Builds a card on the one open queue of its tap. `saved` is its state from a snapshot.
    ///
    /// # Errors
    /// When there is not exactly one tap queue, the MTU is below 68, or the saved state is not that
    /// of such a card.
    pub fn build(
        config: &NetConfig,
        taps: Vec<Tap>,
        saved: Option<StateBlob>,
    ) -> Result<Self, BuildError> {
        let unfit = |reason: String| BuildError::Unfit {
            id: config.id.clone(),
            reason,
        };
        let tap = <[Tap; 1]>::try_from(taps)
            .map(|[tap]| tap)
            .map_err(|taps| unfit(format!("{} tap queues were opened, expected 1", taps.len())))?;
        if config.mtu.is_some_and(|mtu| mtu < MIN_MTU) {
            return Err(unfit(format!("MTU is below {MIN_MTU}")));
        }
        if let Some(blob) = &saved {
            NetStateV1::checked(blob, QUEUE_PAIRS).map_err(|source| BuildError::State {
                id: config.id.clone(),
                source,
            })?;
        }
        Ok(Self {
            id: config.id.clone(),
            spec: DeviceSpec {
                kind: DeviceKind::Net,
                features: offered(config.mtu),
                queue_sizes: vec![QUEUE_SIZE; 2],
            },
            config_space: config_space(config),
            tap: Arc::new(tap),
            counters: Arc::default(),
            faults: LogLimit::new(),
            worker: None,
        })
    }

    /// What the card has moved and dropped.
    pub fn counters(&self) -> Arc<NetCounters> {
        self.counters.clone()
    }

    fn spawn(
        &mut self,
        run: Activation,
        rx: ActiveQueue,
        tx: ActiveQueue,
    ) -> std::io::Result<Worker<Pair>> {
        let ring = Ring::new(rx, run.memory.clone());
        let rx = Rx::new(ring, receive_form(&run), self.counters.clone());
        let tx = Tx::new(Ring::new(tx, run.memory), self.counters.clone());
        let host = PairHost {
            id: self.id.clone(),
            tap: self.tap.clone(),
            interrupt: run.interrupt.clone(),
            counters: self.counters.clone(),
            faults: std::mem::take(&mut self.faults),
        };
        Worker::spawn(self.id.as_str(), Pair::new(host, rx, tx)?, run.interrupt)
    }
}

fn offered(mtu: Option<u16>) -> u64 {
    FEATURES
        .into_iter()
        .filter(|bit| *bit != VIRTIO_NET_F_MTU || mtu.is_some())
        .fold(0, |features, bit| features | 1 << bit)
}

/// `struct virtio_net_config` (§5.1.4) up to the MTU.
fn config_space(config: &NetConfig) -> [u8; 12] {
    let mut space = [0; 12];
    let status = u16::try_from(VIRTIO_NET_S_LINK_UP).unwrap_or_default();
    let words = [status, QUEUE_PAIRS, config.mtu.unwrap_or_default()];
    let bytes = config
        .mac
        .0
        .into_iter()
        .chain(words.into_iter().flat_map(u16::to_le_bytes));
    for (field, byte) in space.iter_mut().zip(bytes) {
        *field = byte;
    }
    space
}

/// Which frames the tap may leave unfinished: those the driver says it takes.
fn offloads(run: &Activation) -> Offloads {
    Offloads {
        checksum: run.acked(VIRTIO_NET_F_GUEST_CSUM),
        tso4: run.acked(VIRTIO_NET_F_GUEST_TSO4),
        tso6: run.acked(VIRTIO_NET_F_GUEST_TSO6),
        ecn: run.acked(VIRTIO_NET_F_GUEST_ECN),
    }
}

fn receive_form(run: &Activation) -> Buffers {
    if run.acked(VIRTIO_NET_F_MRG_RXBUF) {
        Buffers::Merged
    } else {
        Buffers::Single
    }
}

/// The receive and the transmit queue, told whether the driver uses event indices.
fn pick_pair(run: &mut Activation) -> Result<(ActiveQueue, ActiveQueue), ActivateError> {
    let event_idx = run.acked(VIRTIO_RING_F_EVENT_IDX);
    let enabled = run.queues.len();
    let mut rx = None;
    let mut tx = None;
    for mut active in run.queues.drain(..) {
        active.queue.set_event_idx(event_idx);
        match active.index {
            RX_QUEUE => rx = Some(active),
            TX_QUEUE => tx = Some(active),
            _ => {}
        }
    }
    rx.zip(tx)
        .ok_or(ActivateError::MissingQueues { enabled, needed: 2 })
}

impl VirtioDevice for Net {
    fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let fields = self.config_space.get(start..).unwrap_or_default();
        let padding = std::iter::repeat(&0);
        for (byte, field) in data.iter_mut().zip(fields.iter().chain(padding)) {
            *byte = *field;
        }
    }

    /// The whole configuration space is read-only for drivers of virtio 1.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, mut run: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let (rx, tx) = pick_pair(&mut run)?;
        self.tap
            .set_offloads(offloads(&run))
            .map_err(|source| ActivateError::Host {
                action: "set the tap's offloads",
                source,
            })?;
        let worker = self
            .spawn(run, rx, tx)
            .map_err(|source| ActivateError::Host {
                action: "start the network card's thread",
                source,
            })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn stop(&mut self) -> Result<Stopped, DeviceError> {
        let Some(worker) = self.worker.take() else {
            return Ok(Stopped::default());
        };
        let (queues, faults) = worker.stop()?.into_parts();
        self.faults = faults;
        Ok(Stopped {
            queues: queues.into(),
        })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        if self.worker.is_some() {
            return Err(StateError::Active);
        }
        let queue_pairs = QUEUE_PAIRS;
        NetStateV1 { queue_pairs }.encode()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // A thread that outlived its card would keep serving a guest that is gone.
        let _ = self.stop();
    }
}
