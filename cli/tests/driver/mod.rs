//! A driver of a share, and backends as they are: `slotvmm fs-backend`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test uses a part")]

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use devices::device::{DeviceId, Memory, VirtioDevice};
use devices::fs::window::Window;
use devices::fs::{Fs, FsConfig, FsHost, OnExit};
use devices::registry::Position;
use devices::state::StateBlob;
use devices::testing::{FakeInterrupt, Part, QueueDriver, activation, guest_memory};
use devices::vhost_user::Connect;
use fs_backend::abi::OutHeader;
use fs_backend::abi::entry::EntryOut;
use fs_backend::abi::opcode::Opcode;
use zerocopy::{FromBytes as _, IntoBytes as _};

pub(crate) const ROOT: u64 = 1;

/// Starts a backend for `source` and remembers it.
#[derive(Debug, Clone)]
pub(crate) struct Starter {
    source: PathBuf,
    /// The window that backends are told of, in MiB.
    window: Option<u64>,
    started: Arc<Mutex<Vec<Running>>>,
}

/// A backend, and the thread that started it: the host ends the one with the other.
#[derive(Debug)]
struct Running {
    child: Child,
    _thread: Sender<()>,
}

impl Starter {
    pub(crate) fn new(source: &Path) -> Self {
        Self {
            source: source.to_owned(),
            window: None,
            started: Arc::default(),
        }
    }

    /// Waits for all that were started: their device is gone.
    pub(crate) fn wait(&self) {
        for running in self.started.lock().unwrap().iter_mut() {
            let status = running.child.wait().unwrap();
            assert!(status.success(), "{status}");
        }
    }
}

impl Connect for Starter {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let source = self.source.to_str().unwrap();
        let mut arguments = vec!["fs-backend".to_owned(), "--fd=0".to_owned()];
        arguments.push(format!("--source={source}"));
        arguments.extend(self.window.map(|mib| format!("--dax={mib}")));
        let place = self.source.parent().unwrap().to_owned();
        let (to_starter, spawned) = mpsc::channel();
        let (thread, until_forgotten) = mpsc::channel::<()>();
        thread::spawn(move || {
            let program = Path::new(env!("CARGO_BIN_EXE_slotvmm"));
            to_starter
                .send(fs_backend::spawn(program, arguments, &place))
                .unwrap();
            // Nothing is ever sent.
            let _ = until_forgotten.recv();
        });
        let backend = spawned.recv().unwrap().map_err(io::Error::other)?;
        self.started.lock().unwrap().push(Running {
            child: backend.child,
            _thread: thread,
        });
        Ok(backend.connection)
    }

    fn reads_wait(&self) -> bool {
        true
    }
}

/// The share that a [`Machine`] has.
pub(crate) fn config(on_exit: OnExit) -> FsConfig {
    FsConfig {
        id: DeviceId::new("fs0"),
        position: Position(0),
        tag: "share".to_owned(),
        queues: 1,
        window: None,
        on_exit,
    }
}

/// A share whose driver is this test.
pub(crate) struct Machine {
    pub(crate) device: Fs,
    memory: Memory,
    irq: Arc<FakeInterrupt>,
    queues: Vec<QueueDriver>,
    starter: Starter,
}

impl Machine {
    pub(crate) fn start(source: &Path, saved: Option<StateBlob>) -> Self {
        let starter = Starter::new(source);
        let host = FsHost::from(Box::new(starter.clone()));
        Self::run(starter, host, OnExit::Fail, saved)
    }

    /// With a window, of which backends are told that it has `mib` MiB.
    pub(crate) fn with_window(source: &Path, window: Arc<Window>, mib: u64) -> Self {
        Self::with_window_and(source, window, mib, None)
    }

    /// The same, going on with a saved state.
    pub(crate) fn with_window_and(
        source: &Path,
        window: Arc<Window>,
        mib: u64,
        saved: Option<StateBlob>,
    ) -> Self {
        let starter = Starter {
            window: Some(mib),
            ..Starter::new(source)
        };
        let host = FsHost {
            backend: Box::new(starter.clone()),
            window: Some(window),
        };
        Self::run(starter, host, OnExit::Restart, saved)
    }

    fn run(starter: Starter, host: FsHost, on_exit: OnExit, saved: Option<StateBlob>) -> Self {
        let config = config(on_exit);
        let device = Fs::build(&config, host, saved).unwrap();
        let (memory, irq) = (guest_memory(), FakeInterrupt::new());
        let queues = Vec::new();
        let mut machine = Self {
            device,
            memory,
            irq,
            queues,
            starter,
        };
        machine.resume();
        machine
    }

    /// Lets the device serve the queues, at first or after a stop. The driver set them up anew.
    pub(crate) fn resume(&mut self) {
        self.queues = (0..2)
            .map(|index| QueueDriver::new(&self.memory, index, 16))
            .collect();
        let features = self.device.spec().features;
        let active = self.queues.iter().map(|q| q.active_queue(features));
        let run = activation(&self.memory, &self.irq, features, active);
        self.device.activate(run).unwrap();
    }

    /// Stops, saves, and ends the backend.
    pub(crate) fn save(mut self) -> StateBlob {
        self.device.stop().unwrap();
        let saved = self.device.save().unwrap();
        drop(self.device);
        self.starter.wait();
        saved
    }

    /// Kills the backend that was started last.
    pub(crate) fn kill_backend(&mut self) {
        let mut started = self.starter.started.lock().unwrap();
        let mut running = started.pop().unwrap();
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// Drops the device and waits for its backends.
    pub(crate) fn end(mut self) {
        self.device.stop().unwrap();
        drop(self.device);
        self.starter.wait();
    }

    pub(crate) fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        let length = u32::try_from(40 + body.len()).unwrap();
        let mut message = vec![0; 40];
        message[..4].copy_from_slice(&length.to_le_bytes());
        message[4..8].copy_from_slice(&(opcode as u32).to_le_bytes());
        message[8..16].copy_from_slice(&9_u64.to_le_bytes());
        message[16..24].copy_from_slice(&node.to_le_bytes());
        message.extend(body);
        let queue = &mut self.queues[1];
        let head = queue.add(&[Part::Readable(&message), Part::Writable(8192)]);
        queue.kick();
        let written = queue.wait_used(self.irq.as_ref()).unwrap().written;
        let mut reply = queue.bytes(head, 1);
        reply.truncate(usize::try_from(written).unwrap());
        let (header, body) = OutHeader::read_from_prefix(&reply).unwrap();
        match header.error {
            0 => Ok(body.to_vec()),
            error => Err(-error),
        }
    }

    /// As the stock driver begins: with version 7.38 and everything it may be offered.
    pub(crate) fn init(&mut self) {
        let init = [7_u32, 38, 128 << 10, !0, !0];
        let body = [init.as_bytes(), &[0; 44]].concat();
        self.ask(Opcode::Init, 0, &body).unwrap();
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &str) -> u64 {
        let name = format!("{name}\0");
        let entry = self.ask(Opcode::Lookup, parent, name.as_bytes()).unwrap();
        EntryOut::read_from_bytes(&entry).unwrap().nodeid
    }

    pub(crate) fn read(&mut self, node: u64) -> Result<Vec<u8>, i32> {
        self.ask(Opcode::Read, node, &read_in(0, 4096))
    }
}

/// `fuse_read_in`.
pub(crate) fn read_in(offset: u64, size: u32) -> [u8; 40] {
    let mut body = [0; 40];
    body[8..16].copy_from_slice(&offset.to_le_bytes());
    body[16..20].copy_from_slice(&size.to_le_bytes());
    body
}
