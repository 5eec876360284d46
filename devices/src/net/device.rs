//! The card as the transport sees it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::card::{Card, Governor};
use super::control::Control;
use super::features::{config_space, offered, offloads, receive_form};
use super::lanes::{LaneError, Lanes};
use super::pair::Pair;
use super::queues::Queues;
use super::ring::Ring;
use super::session::{Limiters, Session};
use super::state::Settings;
use super::{
    CONTROL_QUEUE_SIZE, Lease, MAX_QUEUE_PAIRS, NetConfig, NetCounters, NetStateV1, QUEUE_SIZE, Tap,
};
use crate::device::{
    ActivateError, Activation, ActiveQueue, DeviceError, DeviceId, DeviceKind, DeviceSpec, Stopped,
    VirtioDevice,
};
use crate::log_limit::LogLimit;
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::worker::Worker;

/// Lowest MTU the standard allows (§5.1.4.1).
const MIN_MTU: u16 = 68;

/// A virtio network card.
pub struct Net {
    id: DeviceId,
    spec: DeviceSpec,
    config_space: [u8; 12],
    /// The queues of its tap, one per pair.
    taps: Vec<Arc<Tap>>,
    counters: Arc<NetCounters>,
    limiters: Limiters,
    lease: Option<Arc<Lease>>,
    faults: Arc<LogLimit>,
    settings: Settings,
    running: Option<Running>,
}

/// A card between activation and stop.
struct Running {
    worker: Worker<Card>,
    /// Queues that the driver enabled but cannot use with the features it took.
    spare: Vec<ActiveQueue>,
}

impl Net {
    /// Builds a card on the open queues of its tap; it offers as many pairs of queues. `saved` is
    /// its state from a snapshot.
    ///
    /// # Errors
    /// When there are no tap queues or more than [`MAX_QUEUE_PAIRS`], the MTU is below 68, or the
    /// saved state is not that of such a card.
    pub fn build(
        config: &NetConfig,
        taps: Vec<Tap>,
        saved: Option<StateBlob>,
    ) -> Result<Self, BuildError> {
        let unfit = |reason: String| BuildError::Unfit {
            id: config.id.clone(),
            reason,
        };
        let count = u16::try_from(taps.len()).unwrap_or(u16::MAX);
        let tap = taps.first().filter(|_| count <= MAX_QUEUE_PAIRS);
        let tap = tap.ok_or_else(|| {
            unfit(format!(
                "{count} tap queues were opened, expected 1 to {MAX_QUEUE_PAIRS}"
            ))
        })?;
        if config.mtu.is_some_and(|mtu| mtu < MIN_MTU) {
            return Err(unfit(format!("MTU is below {MIN_MTU}")));
        }
        let saved = saved
            .map(|blob| NetStateV1::checked(&blob, count))
            .transpose();
        let saved = saved.map_err(|source| BuildError::State {
            id: config.id.clone(),
            source,
        })?;
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * taps.len()];
        queue_sizes.push(CONTROL_QUEUE_SIZE);
        Ok(Self {
            id: config.id.clone(),
            spec: DeviceSpec {
                kind: DeviceKind::Net,
                features: offered(config, count, tap.udp_segments()),
                queue_sizes,
            },
            config_space: config_space(config, count),
            taps: taps.into_iter().map(Arc::new).collect(),
            counters: Arc::default(),
            limiters: Limiters::new(config),
            lease: config.dhcp.clone().map(Arc::new),
            faults: Arc::default(),
            settings: saved.map_or(Settings::fresh(0), NetStateV1::settings),
            running: None,
        })
    }

    /// What the card has moved and dropped.
    pub fn counters(&self) -> Arc<NetCounters> {
        self.counters.clone()
    }

    /// A driver that starts afresh finds the card as new; queues that were used before are those of
    /// a card that was stopped or saved. They cannot say which it is but by their positions.
    fn settings_for(&self, run: &Activation, queues: &Queues) -> Settings {
        let fresh = Settings::fresh(run.features);
        if queues.fresh {
            return fresh;
        }
        Settings {
            active_pairs: self.settings.active_pairs.min(queues.usable_pairs),
            offloads: self.settings.offloads & fresh.offloads,
        }
    }

    fn start(&mut self, mut run: Activation) -> Result<Running, ActivateError> {
        let queues = Queues::sort(&mut run, self.taps.len())?;
        self.settings = self.settings_for(&run, &queues);
        // There is one: `build` saw to it.
        let tap = self.taps.first().cloned();
        let tap = tap.ok_or_else(|| host("use a tap")(std::io::ErrorKind::NotFound.into()))?;
        tap.set_offloads(offloads(self.settings.offloads))
            .map_err(host("set the tap's offloads"))?;
        let session = Arc::new(Session {
            id: self.id.clone(),
            buffers: receive_form(&run),
            memory: run.memory,
            interrupt: run.interrupt.clone(),
            counters: self.counters.clone(),
            limiters: self.limiters.clone(),
            lease: self.lease.clone(),
            faults: self.faults.clone(),
            faulted: AtomicBool::new(false),
        });
        let further = self.taps.iter().skip(1).cloned().zip(queues.further);
        let mut lanes = Lanes::new(session.clone(), further.collect());
        lanes
            .set_active(self.settings.active_pairs.into())
            .map_err(|error| match error {
                LaneError::Host { source, .. } => host("serve a pair of queues")(source),
                other => host("serve a pair of queues")(std::io::Error::other(other)),
            })?;
        let governor = Governor {
            tap: tap.clone(),
            features: run.features,
            max_pairs: queues.usable_pairs,
            settings: self.settings,
        };
        let control = queues
            .control
            .map(|queue| Control::new(Ring::new(queue, session.memory.clone())));
        let start_thread = host("start the network card's thread");
        let work = Pair::new(session.clone(), tap, queues.first)
            .and_then(|pair| Card::new(pair, lanes, control, (session, governor)))
            .map_err(&start_thread)?;
        let worker = Worker::spawn(self.id.as_str(), work, run.interrupt).map_err(&start_thread)?;
        Ok(Running {
            worker,
            spare: queues.spare,
        })
    }
}

/// What an activation that the host refuses fails with.
fn host(action: &'static str) -> impl Fn(std::io::Error) -> ActivateError {
    move |source| ActivateError::Host { action, source }
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

    fn activate(&mut self, run: Activation) -> Result<(), ActivateError> {
        if self.running.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        self.running = Some(self.start(run)?);
        Ok(())
    }

    fn stop(&mut self) -> Result<Stopped, DeviceError> {
        let Some(Running { worker, spare }) = self.running.take() else {
            return Ok(Stopped::default());
        };
        let (mut queues, settings) = worker.stop()?.into_parts()?;
        self.settings = settings;
        queues.extend(spare);
        queues.sort_by_key(|active| active.index);
        Ok(Stopped { queues })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        if self.running.is_some() {
            return Err(StateError::Active);
        }
        NetStateV1 {
            queue_pairs: u16::try_from(self.taps.len()).unwrap_or(MAX_QUEUE_PAIRS),
            active_pairs: self.settings.active_pairs,
            offloads: self.settings.offloads,
        }
        .encode()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // A thread that outlived its card would keep serving a guest that is gone.
        let _ = self.stop();
    }
}
