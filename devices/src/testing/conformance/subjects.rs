//! One device of every kind, with handles that any machine has.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::blk::{Access, BlkConfig, Discard, Engine};
use crate::console::{ConsoleConfig, ConsoleHost, Input};
use crate::device::{DeviceId, VirtioDevice};
use crate::fs::window::{MIN_WINDOW_BYTES, Window};
use crate::fs::{FsConfig, OnExit};
use crate::net::{MacAddr, NetConfig, Tap};
use crate::registry::{DeviceConfig, HostHandles, Position};
use crate::rng::RngConfig;
use crate::state::StateBlob;
use crate::testing::backend::Backends;
use crate::testing::{MmioDriver, Reads, Sink, guest_memory};
use crate::vsock::{Cid, VsockConfig, VsockHost};

const DISK_BYTES: u64 = 1 << 20;

/// Above all memory that guests have here.
const WINDOW_ADDRESS: u64 = 1 << 40;

/// Two frames wait on every tap: a header of 12 bytes each, and something after it.
const FRAMES: [usize; 2] = [72, 1526];

/// A device to check, built anew as often as needed.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What to call it when it fails.
    pub name: &'static str,
    config: DeviceConfig,
    /// Queues that the device leaves alone until the driver asks it to serve them.
    idle: std::ops::Range<u16>,
    /// How its drivers' accesses reach the transport.
    reads: Reads,
}

impl Subject {
    /// Whether the device serves queue `index` from the start.
    pub fn serves(&self, index: u16) -> bool {
        !self.idle.contains(&index)
    }

    /// The same device on a machine whose drivers' accesses arrive in this way; as exits unless told.
    #[must_use]
    pub fn reading(self, reads: Reads) -> Self {
        Self { reads, ..self }
    }

    /// Builds the device, behind its transport and with a driver.
    ///
    /// # Panics
    /// When it is refused.
    pub fn driver(&self) -> MmioDriver {
        MmioDriver::with_reads(self.build(None), &guest_memory(), self.reads)
    }

    /// Builds the device, from `saved` state when there is one.
    ///
    /// # Panics
    /// When it is refused.
    pub fn build(&self, saved: Option<StateBlob>) -> Box<dyn VirtioDevice> {
        self.try_build(saved)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// As [`build`](Self::build), for state that may be refused.
    ///
    /// # Errors
    /// When the registry refuses the device.
    pub fn try_build(
        &self,
        saved: Option<StateBlob>,
    ) -> Result<Box<dyn VirtioDevice>, crate::registry::BuildError> {
        self.config.build(&mut handles(self), saved)
    }
}

/// Every device of the registry, in every form that has code of its own.
pub fn subjects() -> Vec<Subject> {
    let blk = |name, access, engine| Subject {
        name,
        config: DeviceConfig::Blk(BlkConfig {
            id: DeviceId::new("disk0"),
            position: Position(0),
            access,
            serial: Some("conformance".to_owned()),
            engine,
            discard: Discard::Offer,
        }),
        idle: 0..0,
        reads: Reads::Exit,
    };
    let net = |name, idle: std::ops::Range<u16>| Subject {
        name,
        config: DeviceConfig::Net(NetConfig {
            mtu: Some(1500),
            ..NetConfig::new(
                DeviceId::new("net0"),
                Position(1),
                MacAddr([2, 0, 0, 0, 0, 1]),
            )
        }),
        idle,
        reads: Reads::Exit,
    };
    vec![
        blk(
            "blk, writable, io_uring where there is one",
            Access::ReadWrite,
            Engine::Auto,
        ),
        blk(
            "blk, writable, synchronous",
            Access::ReadWrite,
            Engine::Sync,
        ),
        blk("blk, read-only", Access::ReadOnly, Engine::Sync),
        net("net, one pair of queues", 0..0),
        net("net, three pairs of queues", 2..6),
        rng(),
        fs("fs", None),
        fs("fs with a window", Some(MIN_WINDOW_BYTES)),
        vsock(),
        console(),
    ]
}

fn fs(name: &'static str, window: Option<u64>) -> Subject {
    Subject {
        name,
        config: DeviceConfig::Fs(FsConfig {
            id: DeviceId::new("fs0"),
            position: Position(3),
            tag: "conformance".to_owned(),
            queues: 2,
            window,
            on_exit: OnExit::Fail,
        }),
        idle: 0..0,
        reads: Reads::Exit,
    }
}

fn rng() -> Subject {
    Subject {
        name: "rng",
        config: DeviceConfig::Rng(RngConfig {
            id: DeviceId::new("rng0"),
            position: Position(2),
        }),
        idle: 0..0,
        reads: Reads::Exit,
    }
}

fn vsock() -> Subject {
    Subject {
        name: "vsock",
        config: DeviceConfig::Vsock(VsockConfig {
            id: DeviceId::new("vsock0"),
            position: Position(4),
            cid: Cid::new(3).unwrap(),
        }),
        idle: 0..0,
        reads: Reads::Exit,
    }
}

fn console() -> Subject {
    Subject {
        name: "console",
        config: DeviceConfig::Console(ConsoleConfig {
            id: DeviceId::new("console0"),
            position: Position(5),
        }),
        idle: 0..0,
        reads: Reads::Exit,
    }
}

/// What the device needs from the host; each kind says so here.
fn handles(subject: &Subject) -> HostHandles {
    let mut host = HostHandles::default();
    match &subject.config {
        DeviceConfig::Blk(blk) => host.add_disk(blk.id.clone(), disk(blk.access)),
        DeviceConfig::Net(net) => host.add_net(net.id.clone(), taps(1 + subject.idle.len() / 2)),
        DeviceConfig::Rng(_) => {}
        DeviceConfig::Fs(fs) => {
            let backends = Backends::new();
            if let Some(bytes) = fs.window {
                backends.set_window(bytes);
                let window = Window::reserve(bytes, WINDOW_ADDRESS).unwrap();
                host.add_window(fs.id.clone(), Arc::new(window));
            }
            host.add_fs(fs.id.clone(), Box::new(backends));
        }
        DeviceConfig::Vsock(vsock) => host.add_vsock(vsock.id.clone(), VsockHost::default()),
        DeviceConfig::Console(config) => {
            let input = Arc::new(Input::new().unwrap());
            // Something to read, so that the receive queue is looked at.
            input.enqueue(&[0x55; 4096]);
            let output = Box::new(Sink::new(usize::MAX));
            host.add_console(config.id.clone(), ConsoleHost { input, output });
        }
    }
    host
}

fn disk(access: Access) -> File {
    let image = File::from(memfd_create("conformance", MemfdFlags::CLOEXEC).unwrap());
    image.set_len(DISK_BYTES).unwrap();
    match access {
        Access::ReadWrite => image,
        Access::ReadOnly => File::open(format!("/proc/self/fd/{}", image.as_raw_fd())).unwrap(),
    }
}

fn taps(pairs: usize) -> Vec<Tap> {
    (0..pairs).map(|_| tap()).collect()
}

fn tap() -> Tap {
    let (card, host) = UnixDatagram::pair().unwrap();
    for bytes in FRAMES {
        let mut frame = vec![0x55; bytes];
        frame.get_mut(..12).unwrap().fill(0);
        host.send(&frame).unwrap();
    }
    Tap::over_datagrams(OwnedFd::from(card)).unwrap()
}
