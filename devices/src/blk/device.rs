//! The device as its transport sees it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueT;

use super::config::{Access, BlkConfig, Discard, Engine};
use super::request::{ID_BYTES, Limits, MAX_RANGE_SECTORS, MAX_RANGES};
use super::requests::Disk;
use super::state::BlkStateV1;
use super::worker::BlkQueue;
use crate::device::{
    ActivateError, Activation, ActiveQueue, DeviceError, DeviceKind, DeviceSpec, Memory, Stopped,
    VirtioDevice, read_space,
};
use crate::disk::{
    DiskEngine, Durability, PreservingEngine, RawDisk, RawDiskError, SECTOR_BYTES, SyncEngine,
    UringEngine,
};
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::worker::Worker;

/// Size of the request queue.
const QUEUE_SIZE: u16 = 256;
/// Data buffers of a request: a chain has a header and a status byte besides.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of `virtio_blk_config` up to and including the write-zeroes limits (§5.2.4).
const CONFIG_BYTES: usize = 60;
/// Block size that drivers address in.
const BLOCK_BYTES: u32 = 512;
/// Blocks of 4 KiB are what the host's filesystem and page cache work in; as a power of two of
/// [`BLOCK_BYTES`], and as a number of blocks.
const PHYSICAL_BLOCK_EXP: u8 = 3;
const PHYSICAL_BLOCKS: u16 = 1 << PHYSICAL_BLOCK_EXP;

/// A virtio block device.
pub struct Blk {
    spec: DeviceSpec,
    config_space: [u8; CONFIG_BYTES],
    disk: Disk,
    image: Arc<RawDisk>,
    engine: Engine,
    state: BlkStateV1,
    worker: Option<Worker<BlkQueue>>,
}

impl Blk {
    /// Builds the device on its open image. `saved` is its state from a snapshot.
    ///
    /// # Errors
    /// When the image is unfit or open in another mode than configured, the serial is too long,
    /// the saved state is of another disk, or io_uring is demanded and the host has none.
    pub fn build(
        config: &BlkConfig,
        image: File,
        saved: Option<StateBlob>,
    ) -> Result<Self, BuildError> {
        let image = RawDisk::new(image).map_err(|error| unfit_image(config, error))?;
        let writable = config.access == Access::ReadWrite;
        if image.writable() != writable {
            let reason = match config.access {
                Access::ReadOnly => "image is open for writing, expected read-only",
                Access::ReadWrite => "image is open read-only, expected reading and writing",
            };
            return Err(unfit(config, reason));
        }
        let disk = Disk {
            id: config.id.clone(),
            limits: Limits {
                capacity: image.size(),
                writable,
                discard: writable && config.discard == Discard::Offer,
            },
            serial: serial(config)?,
        };
        let state = BlkStateV1::of(config, image.size() / SECTOR_BYTES);
        if let Some(saved) = saved {
            let checked = state.check(&saved);
            checked.map_err(|source| BuildError::State {
                id: config.id.clone(),
                source,
            })?;
        }
        if config.engine == Engine::IoUring {
            let probed = UringEngine::probe(&image);
            probed.map_err(|source| BuildError::Host {
                id: config.id.clone(),
                action: "set up io_uring; use the engine `sync` or allow it on this host",
                source,
            })?;
        }
        Ok(Self {
            spec: DeviceSpec {
                kind: DeviceKind::Blk,
                features: features(&disk.limits),
                queue_sizes: vec![QUEUE_SIZE],
                shared_memory: None,
            },
            config_space: config_space(&disk.limits),
            disk,
            image: Arc::new(image),
            engine: config.engine,
            state,
            worker: None,
        })
    }

    /// The image, for what else is done with it while the device is stopped.
    pub(crate) fn image(&self) -> Arc<RawDisk> {
        Arc::clone(&self.image)
    }

    /// The engine for one activation; with [`Engine::Auto`] the best that the host has.
    fn engine(
        &self,
        memory: &Memory,
        tags: u16,
        durability: Durability,
    ) -> io::Result<PreservingEngine> {
        let sync = || SyncEngine::new(Arc::clone(&self.image), memory.clone(), tags, durability);
        let uring = || UringEngine::new(Arc::clone(&self.image), memory.clone(), tags, durability);
        let engine = choose(self.engine, uring, sync)?;
        tracing::debug!(device = %self.disk.id, engine = engine.name(), "disk engine chosen");
        Ok(PreservingEngine::new(engine, Arc::clone(&self.image)))
    }
}

/// The engine asked for; a host without io_uring is no error unless io_uring was demanded.
pub(super) fn choose<U: DiskEngine + 'static, S: DiskEngine + 'static>(
    engine: Engine,
    uring: impl FnOnce() -> io::Result<U>,
    sync: impl FnOnce() -> S,
) -> io::Result<Box<dyn DiskEngine>> {
    match engine {
        Engine::Sync => Ok(Box::new(sync())),
        Engine::IoUring => Ok(Box::new(uring()?)),
        Engine::Auto => match uring() {
            Ok(engine) => Ok(Box::new(engine)),
            Err(error) => {
                tracing::info!(%error, "no io_uring on this host; using synchronous disk I/O");
                Ok(Box::new(sync()))
            }
        },
    }
}

impl VirtioDevice for Blk {
    fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_space(&self.config_space, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {
        // The only writable field is `writeback`, which goes with a feature that is not offered.
    }

    fn activate(&mut self, mut run: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let durability = match run.acked(VIRTIO_BLK_F_FLUSH) {
            true => Durability::OnFlush,
            false => Durability::EveryWrite,
        };
        let event_idx = run.acked(VIRTIO_RING_F_EVENT_IDX);
        let [mut active] = run.take_queues()?;
        active.queue.set_event_idx(event_idx);
        let engine = self.engine(&run.memory, active.queue.size(), durability);
        let engine = engine.map_err(|source| ActivateError::Host {
            action: "set up the disk engine",
            source,
        })?;
        let queue = BlkQueue::new(
            self.disk.clone(),
            active,
            run.memory,
            Arc::clone(&run.interrupt),
            engine,
        );
        let worker = Worker::spawn(self.disk.id.as_str(), queue, run.interrupt);
        self.worker = Some(worker.map_err(|source| ActivateError::Host {
            action: "start the disk's thread",
            source,
        })?);
        Ok(())
    }

    fn stop(&mut self) -> Result<Stopped, DeviceError> {
        let mut queues: Vec<ActiveQueue> = Vec::new();
        if let Some(worker) = self.worker.take() {
            queues.push(worker.stop()?.into_queue());
        }
        Ok(Stopped { queues })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        if self.worker.is_some() {
            return Err(StateError::Active);
        }
        self.state.save()
    }
}

fn features(limits: &Limits) -> u64 {
    let mut bits = vec![
        VIRTIO_F_VERSION_1,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
    ];
    if !limits.writable {
        bits.push(VIRTIO_BLK_F_RO);
    }
    if limits.discard {
        bits.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]);
    }
    bits.into_iter()
        .fold(0, |features, bit| features | 1 << bit)
}

/// `virtio_blk_config` (§5.2.4), little-endian; fields of features not offered are zero.
fn config_space(limits: &Limits) -> [u8; CONFIG_BYTES] {
    let mut space = [0; CONFIG_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (to, from) in space.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &(limits.capacity / SECTOR_BYTES).to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &BLOCK_BYTES.to_le_bytes());
    put(24, &[PHYSICAL_BLOCK_EXP]);
    put(26, &PHYSICAL_BLOCKS.to_le_bytes());
    // num_queues, for drivers that read it without VIRTIO_BLK_F_MQ.
    put(34, &1_u16.to_le_bytes());
    if limits.discard {
        put(36, &MAX_RANGE_SECTORS.to_le_bytes());
        put(40, &MAX_RANGES.to_le_bytes());
        put(44, &u32::from(PHYSICAL_BLOCKS).to_le_bytes());
        put(48, &MAX_RANGE_SECTORS.to_le_bytes());
        put(52, &MAX_RANGES.to_le_bytes());
        put(56, &[1]);
    }
    space
}

fn serial(config: &BlkConfig) -> Result<[u8; ID_BYTES], BuildError> {
    let text = config.serial.as_deref().unwrap_or_default();
    if !text.is_ascii() || text.len() > ID_BYTES {
        return Err(unfit(
            config,
            "serial is not ASCII of at most 20 bytes; shorten it",
        ));
    }
    let mut serial = [0; ID_BYTES];
    for (to, from) in serial.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    Ok(serial)
}

fn unfit(config: &BlkConfig, reason: impl Into<String>) -> BuildError {
    BuildError::Unfit {
        id: config.id.clone(),
        reason: reason.into(),
    }
}

fn unfit_image(config: &BlkConfig, error: RawDiskError) -> BuildError {
    match error {
        RawDiskError::Inspect { source } => BuildError::Host {
            id: config.id.clone(),
            action: "inspect the disk image",
            source,
        },
        RawDiskError::Gate(source) => BuildError::Host {
            id: config.id.clone(),
            action: "make an eventfd for the disk image",
            source,
        },
        other => unfit(config, other.to_string()),
    }
}
