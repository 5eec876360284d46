//! The card as the transport sees it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::card::{Card, First, Governor};
use super::control::Control;
use super::features::{config_space, offered, offloads, receive_form};
use super::lanes::{LaneError, Lanes};
use super::pair::Pair;
use super::queues::Queues;
use super::ring::Ring;
use super::session::{End, Limiters, PairQueues, Session};
use super::state::Settings;
use super::vhost::{KernelPair, Lines};
use super::{
    CONTROL_QUEUE_SIZE, Lease, MAX_QUEUE_PAIRS, NetConfig, NetCounters, NetStateV1, QUEUE_SIZE,
    Tap, VhostNet,
};
use crate::device::{
    ActivateError, Activation, ActiveQueue, DeviceError, DeviceId, DeviceKind, DeviceSpec, Stopped,
    VirtioDevice, read_space,
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
    /// The queues of its tap, one per pair, and who serves them.
    ends: Vec<End>,
    counters: Arc<NetCounters>,
    limiters: Limiters,
    lease: Option<Arc<Lease>>,
    faults: Arc<LogLimit>,
    settings: Settings,
    running: Option<Running>,
}

/// What a card has of the host, open.
#[derive(Debug)]
pub struct NetHost {
    /// The queues of its tap, one per pair.
    pub taps: Vec<Tap>,
    /// As many vhost-net descriptors when the kernel is to serve the pairs, or none.
    pub vhost: Vec<VhostNet>,
}

impl From<Vec<Tap>> for NetHost {
    /// A card that serves its pairs itself.
    fn from(taps: Vec<Tap>) -> Self {
        let vhost = Vec::new();
        Self { taps, vhost }
    }
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
        host: impl Into<NetHost>,
        saved: Option<StateBlob>,
    ) -> Result<Self, BuildError> {
        let NetHost { taps, vhost } = host.into();
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
        check_vhost(config, &taps, &vhost).map_err(unfit)?;
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
                shared_memory: None,
            },
            config_space: config_space(config, count),
            ends: ends(taps, vhost),
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

    /// Eventfds for the kernel, when it serves the pairs.
    fn lines(&self, run: &Activation) -> std::io::Result<Option<Lines>> {
        if !self.ends.iter().any(|end| end.vhost.is_some()) {
            return Ok(None);
        }
        Ok(Some(Lines {
            call: run.interrupt.external()?,
            error: EventFd::new(EFD_NONBLOCK)?,
        }))
    }

    fn start(&mut self, mut run: Activation) -> Result<Running, ActivateError> {
        let queues = Queues::sort(&mut run, self.ends.len())?;
        self.settings = self.settings_for(&run, &queues);
        // There is one: `build` saw to it.
        let end = self.ends.first().cloned();
        let end = end.ok_or_else(|| host("use a tap")(std::io::ErrorKind::NotFound.into()))?;
        end.tap
            .set_offloads(offloads(self.settings.offloads))
            .map_err(host("set the tap's offloads"))?;
        let session = Arc::new(Session {
            id: self.id.clone(),
            features: run.features,
            lines: self.lines(&run).map_err(host("get an interrupt line"))?,
            buffers: receive_form(&run),
            memory: run.memory,
            interrupt: run.interrupt.clone(),
            counters: self.counters.clone(),
            limiters: self.limiters.clone(),
            lease: self.lease.clone(),
            faults: self.faults.clone(),
            faulted: AtomicBool::new(false),
        });
        let further = self.ends.iter().skip(1).cloned().zip(queues.further);
        let mut lanes = Lanes::new(session.clone(), further.collect());
        lanes
            .set_active(self.settings.active_pairs.into())
            .map_err(|error| match error {
                LaneError::Host { source, .. } => host("serve a pair of queues")(source),
                other => host("serve a pair of queues")(std::io::Error::other(other)),
            })?;
        let governor = Governor {
            tap: end.tap.clone(),
            features: run.features,
            max_pairs: queues.usable_pairs,
            settings: self.settings,
        };
        let control = queues
            .control
            .map(|queue| Control::new(Ring::new(queue, session.memory.clone())));
        let start_thread = host("start the network card's thread");
        let work = first(&session, end, queues.first)
            .and_then(|first| Card::new(first, lanes, control, (session, governor)))
            .map_err(&start_thread)?;
        let worker = Worker::spawn(self.id.as_str(), work, run.interrupt).map_err(&start_thread)?;
        Ok(Running {
            worker,
            spare: queues.spare,
        })
    }
}

/// What vhost-net cannot do, or nothing.
fn check_vhost(config: &NetConfig, taps: &[Tap], vhost: &[VhostNet]) -> Result<(), String> {
    if vhost.is_empty() {
        return Ok(());
    }
    if vhost.len() != taps.len() {
        let (found, expected) = (vhost.len(), taps.len());
        return Err(format!(
            "{found} vhost-net descriptors were opened, expected {expected}, one per pair of queues"
        ));
    }
    let limited = config.rx_limits.any() || config.tx_limits.any();
    if limited || config.dhcp.is_some() {
        return Err("vhost-net can neither limit rates nor answer DHCP".to_owned());
    }
    Ok(())
}

fn ends(taps: Vec<Tap>, vhost: Vec<VhostNet>) -> Vec<End> {
    let mut vhost = vhost.into_iter();
    let end = |tap| End {
        tap: Arc::new(tap),
        vhost: vhost.next().map(Arc::new),
    };
    taps.into_iter().map(end).collect()
}

fn first(session: &Arc<Session>, end: End, queues: PairQueues) -> std::io::Result<First> {
    let End { tap, vhost } = end;
    Ok(match vhost {
        None => First::Here(Box::new(Pair::new(session.clone(), tap, queues)?)),
        Some(vhost) => First::Kernel(KernelPair::start(session, &vhost, &tap, queues)?),
    })
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
        read_space(&self.config_space, offset, data);
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
            queue_pairs: u16::try_from(self.ends.len()).unwrap_or(MAX_QUEUE_PAIRS),
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
