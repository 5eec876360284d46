//! The hub between a real serial port and socket clients.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use devices::bus::BusDevice;
use devices::legacy::serial::SerialPort;

use super::*;
use crate::console::outbox::OutboxWriter;
use crate::console::{Console, outbox};
use crate::events::event_channel;
use crate::phases::Phases;
use crate::readiness::{Board, Criterion};

const DATA: u64 = 0;
const LINE_STATUS: u64 = 5;
const DATA_READY: u8 = 1;

struct Rig {
    console: Console,
    port: Arc<Mutex<SerialPort>>,
    /// Keeps the machine's end of the event channel open.
    _queue: crate::events::EventQueue,
}

fn rig(ends: ConsoleEnds) -> Rig {
    let phases = Arc::new(Phases::since(Instant::now()));
    let (events, queue) = event_channel(phases.clone()).unwrap();
    let board = Board::new(Criterion::Running, None, phases.clone()).unwrap();
    let outbox = outbox(events, phases, Arc::new(board)).unwrap();
    let irq = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
    let writer = Box::new(OutboxWriter(outbox.clone()));
    let port = Arc::new(Mutex::new(SerialPort::new(irq, writer).unwrap()));
    let console = Console::start(outbox, (port.clone(), None), ends).unwrap();
    Rig {
        console,
        port,
        _queue: queue,
    }
}

impl Rig {
    fn guest_says(&self, text: &[u8]) {
        for byte in text {
            self.port.lock().unwrap().write(DATA, &[*byte]);
        }
    }

    /// Reads `count` bytes as the guest's driver would.
    fn guest_hears(&self, count: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let mut byte = [0];
            let mut port = self.port.lock().unwrap();
            port.read(LINE_STATUS, &mut byte);
            if byte[0] & DATA_READY != 0 {
                port.read(DATA, &mut byte);
                heard.push(byte[0]);
            } else {
                drop(port);
                std::thread::yield_now();
            }
        }
        heard
    }
}

fn read_exactly(stream: &mut UnixStream, count: usize) -> Vec<u8> {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn late_client_sees_what_was_said_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console.sock");
    let (client, mut first) = UnixStream::pair().unwrap();
    let rig = rig(ConsoleEnds {
        output: None,
        client: Some(client),
        listener: Some(UnixListener::bind(&path).unwrap()),
    });
    rig.guest_says(b"early ");
    assert_eq!(read_exactly(&mut first, 6), b"early ");
    let mut late = UnixStream::connect(&path).unwrap();
    rig.guest_says(b"late");
    assert_eq!(read_exactly(&mut late, 10), b"early late");
    rig.console.finish();
}

#[test]
fn clients_come_and_go_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console.sock");
    let rig = rig(ConsoleEnds {
        listener: Some(UnixListener::bind(&path).unwrap()),
        ..Default::default()
    });
    rig.guest_says(b"hello");
    for _ in 0..3 {
        let mut client = UnixStream::connect(&path).unwrap();
        assert_eq!(read_exactly(&mut client, 5), b"hello");
        client.write_all(b"x").unwrap();
        assert_eq!(rig.guest_hears(1), b"x");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // The hub hangs up when it has noticed, so the next client comes after that.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    rig.console.finish();
}

#[test]
fn input_longer_than_the_port_holds_arrives_whole() {
    let (client, mut user) = UnixStream::pair().unwrap();
    let rig = rig(ConsoleEnds {
        client: Some(client),
        ..Default::default()
    });
    let typed: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
    user.write_all(&typed).unwrap();
    assert_eq!(rig.guest_hears(typed.len()), typed);
    rig.console.finish();
}

#[test]
fn last_output_is_passed_on_before_the_end() {
    let (client, mut user) = UnixStream::pair().unwrap();
    let rig = rig(ConsoleEnds {
        client: Some(client),
        ..Default::default()
    });
    let text = vec![b'z'; 10_000];
    rig.guest_says(&text);
    rig.console.finish();
    let mut all = Vec::new();
    user.read_to_end(&mut all).unwrap();
    assert_eq!(all, text);
}

#[test]
fn bounded_queue_keeps_the_newest() {
    let mut queue = VecDeque::new();
    push_bounded(&mut queue, b"abcd", 6);
    push_bounded(&mut queue, b"efgh", 6);
    assert_eq!(queue, b"cdefgh");
    push_bounded(&mut queue, b"0123456789", 6);
    assert_eq!(queue, b"456789");
}
