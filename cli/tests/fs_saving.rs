//! A share that is saved and restored: another process goes on where the first one was stopped,
//! between the device of a machine and backends as they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};

use devices::device::{DeviceId, Memory, VirtioDevice};
use devices::fs::{Fs, FsConfig, OnExit};
use devices::registry::Position;
use devices::state::StateBlob;
use devices::testing::{FakeInterrupt, Part, QueueDriver, activation, guest_memory};
use devices::vhost_user::Connect;
use fs_backend::abi::OutHeader;
use fs_backend::abi::entry::EntryOut;
use fs_backend::abi::opcode::Opcode;
use zerocopy::{FromBytes as _, IntoBytes as _};

const ROOT: u64 = 1;
const ESTALE: i32 = 116;

/// Starts a backend for `source` and remembers it.
#[derive(Debug, Clone)]
struct Starter {
    source: PathBuf,
    started: Arc<Mutex<Vec<Child>>>,
}

impl Starter {
    fn new(source: &Path) -> Self {
        Self {
            source: source.to_owned(),
            started: Arc::default(),
        }
    }

    /// Waits for all that were started: their device is gone.
    fn wait(&self) {
        for child in self.started.lock().unwrap().iter_mut() {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
    }
}

impl Connect for Starter {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let program = Path::new(env!("CARGO_BIN_EXE_slotvmm"));
        let source = self.source.to_str().unwrap();
        let arguments = ["fs-backend", "--fd", "0", "--source", source];
        let place = self.source.parent().unwrap();
        let backend = fs_backend::spawn(program, arguments, place).map_err(io::Error::other)?;
        self.started.lock().unwrap().push(backend.child);
        Ok(backend.connection)
    }
}

/// A share whose driver is this test.
struct Machine {
    device: Fs,
    memory: Memory,
    irq: Arc<FakeInterrupt>,
    queues: Vec<QueueDriver>,
    starter: Starter,
}

impl Machine {
    fn start(source: &Path, saved: Option<StateBlob>) -> Self {
        let config = FsConfig {
            id: DeviceId::new("fs0"),
            position: Position(0),
            tag: "share".to_owned(),
            queues: 1,
            on_exit: OnExit::Fail,
        };
        let starter = Starter::new(source);
        let device = Fs::build(&config, Box::new(starter.clone()), saved).unwrap();
        let (memory, irq) = (guest_memory(), FakeInterrupt::new());
        let queues = (0..2)
            .map(|index| QueueDriver::new(&memory, index, 16))
            .collect();
        let mut machine = Self {
            device,
            memory,
            irq,
            queues,
            starter,
        };
        let features = machine.device.spec().features;
        let active = machine.queues.iter().map(|q| q.active_queue(features));
        let run = activation(&machine.memory, &machine.irq, features, active);
        machine.device.activate(run).unwrap();
        machine
    }

    /// Stops, saves, and ends the backend.
    fn save(mut self) -> StateBlob {
        self.device.stop().unwrap();
        let saved = self.device.save().unwrap();
        drop(self.device);
        self.starter.wait();
        saved
    }

    fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
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
    fn init(&mut self) {
        let init = [7_u32, 38, 128 << 10, !0];
        let body = [init.as_bytes(), &[0; 48]].concat();
        self.ask(Opcode::Init, 0, &body).unwrap();
    }

    fn lookup(&mut self, parent: u64, name: &str) -> u64 {
        let name = format!("{name}\0");
        let entry = self.ask(Opcode::Lookup, parent, name.as_bytes()).unwrap();
        EntryOut::read_from_bytes(&entry).unwrap().nodeid
    }

    fn read(&mut self, node: u64) -> Result<Vec<u8>, i32> {
        self.ask(Opcode::Read, node, &read_in(0, 4096))
    }

    /// A page of the listing of `node` after `offset`: names, and where each ends.
    fn page(&mut self, node: u64, offset: u64, size: u32) -> Vec<(String, u64)> {
        let page = self
            .ask(Opcode::Readdir, node, &read_in(offset, size))
            .unwrap();
        let mut rest = page.as_slice();
        let mut names = Vec::new();
        // `fuse_dirent`: inode, offset, length of the name, type, name; padded to eight bytes.
        while let Some((fixed, after)) = rest.split_first_chunk::<24>() {
            let field = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().unwrap());
            let length = usize::try_from(field(16) & 0xffff_ffff).unwrap();
            names.push((
                String::from_utf8(after[..length].to_vec()).unwrap(),
                field(8),
            ));
            rest = after.get(length.next_multiple_of(8)..).unwrap_or_default();
        }
        names
    }
}

/// `fuse_read_in`.
fn read_in(offset: u64, size: u32) -> [u8; 40] {
    let mut body = [0; 40];
    body[8..16].copy_from_slice(&offset.to_le_bytes());
    body[16..20].copy_from_slice(&size.to_le_bytes());
    body
}

#[test]
fn files_and_listings_go_on_in_another_process_and_what_changed_is_stale() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir_all(source.join("directory")).unwrap();
    for number in 0..100 {
        let path = source.join(format!("directory/file{number}"));
        fs::write(path, number.to_string()).unwrap();
    }
    for name in ["kept", "unlinked", "replaced", "moved"] {
        fs::write(source.join(name), name).unwrap();
    }
    let mut machine = Machine::start(&source, None);
    machine.init();
    let nodes: BTreeMap<_, _> = ["kept", "unlinked", "replaced", "moved"]
        .map(|name| (name, machine.lookup(ROOT, name)))
        .into();
    let directory = machine.lookup(ROOT, "directory");
    let deep = machine.lookup(directory, "file42");
    for (name, node) in &nodes {
        assert_eq!(machine.read(*node).unwrap(), name.as_bytes());
    }
    // In the middle of a listing.
    let mut names = machine.page(directory, 0, 1024);
    assert!((1..90).contains(&names.len()), "{}", names.len());
    let saved = machine.save();

    fs::remove_file(source.join("unlinked")).unwrap();
    fs::write(source.join("new"), "another").unwrap();
    fs::rename(source.join("new"), source.join("replaced")).unwrap();
    fs::rename(source.join("moved"), source.join("elsewhere")).unwrap();

    // The driver was told nothing: it goes on without another FUSE_INIT.
    let mut machine = Machine::start(&source, Some(saved));
    assert_eq!(machine.read(nodes["kept"]).unwrap(), b"kept");
    assert_eq!(machine.read(deep).unwrap(), b"42");
    for name in ["unlinked", "replaced", "moved"] {
        assert_eq!(machine.read(nodes[name]), Err(ESTALE), "{name}");
    }
    loop {
        let offset = names.last().map_or(0, |(_, offset)| *offset);
        let page = machine.page(directory, offset, 1024);
        if page.is_empty() {
            break;
        }
        names.extend(page);
    }
    let mut names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name != "." && name != "..");
    names.sort_unstable();
    let mut expected: Vec<_> = (0..100).map(|number| format!("file{number}")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected, "each name once");

    // Names that are looked up again lead to what is there now.
    let replaced = machine.lookup(ROOT, "replaced");
    assert_eq!(machine.read(replaced).unwrap(), b"another");
    let elsewhere = machine.lookup(ROOT, "elsewhere");
    assert_eq!(machine.read(elsewhere).unwrap(), b"moved");

    // And it can be saved once more, with the driver's next session empty of all this.
    let mut machine = Machine::start(&source, Some(machine.save()));
    assert_eq!(machine.read(deep).unwrap(), b"42");
    machine.init();
    assert_eq!(machine.read(deep), Err(ESTALE), "reset keeps nothing");
    machine.save();
}

#[test]
fn state_of_another_program_is_refused_by_the_backend() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir(&source).unwrap();
    let mut machine = Machine::start(&source, None);
    machine.init();
    let saved = machine.save();
    // The first bytes are the envelope's, then comes what our backend writes first.
    let at = saved.bytes.windows(8).position(|part| part == b"slotvmFS");
    let mut foreign = saved;
    foreign.bytes[at.unwrap()] ^= 1;
    let config = FsConfig {
        id: DeviceId::new("fs0"),
        position: Position(0),
        tag: "share".to_owned(),
        queues: 1,
        on_exit: OnExit::Fail,
    };
    let starter = Starter::new(&source);
    let refused = Fs::build(&config, Box::new(starter.clone()), Some(foreign));
    let error = refused.map(drop).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        reason.contains("does not go on with the saved state"),
        "{reason}"
    );
    starter.wait();
}
