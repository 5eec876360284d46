//! The whole device, rings included.

use std::io::{Read, Write};

use super::*;
use crate::device::{DeviceId, VirtioDevice};
use crate::registry::Position;
use crate::state::StateBlob;
use crate::testing::{FakeInterrupt, Part, QueueDriver, activation, guest_memory};
use crate::vsock::{HEADER_BYTES, Vsock, VsockConfig};

struct Machine {
    device: Vsock,
    irq: std::sync::Arc<FakeInterrupt>,
    memory: crate::device::Memory,
    rx: QueueDriver,
    tx: QueueDriver,
    events: QueueDriver,
    dialled: mpsc::Receiver<UnixStream>,
}

const RX_BUFFER: u32 = 4096;

impl Machine {
    fn start(saved: Option<StateBlob>) -> Self {
        let (sender, dialled) = mpsc::channel();
        let host = VsockHost {
            dial: Some(Box::new(Switchboard(sender))),
            ..VsockHost::default()
        };
        let config = VsockConfig {
            id: DeviceId::new("vsock0"),
            position: Position(0),
            cid: Cid::new(GUEST).unwrap(),
        };
        let device = Vsock::build(&config, host, saved).unwrap();
        let memory = guest_memory();
        let irq = FakeInterrupt::new();
        let mut machine = Self {
            rx: QueueDriver::new(&memory, 0, 128),
            tx: QueueDriver::new(&memory, 1, 128),
            events: QueueDriver::new(&memory, 2, 16),
            memory: memory.clone(),
            irq: irq.clone(),
            dialled,
            device: {
                let mut cid = [0; 8];
                device.read_config(0, &mut cid);
                assert_eq!(u64::from_le_bytes(cid), GUEST);
                device
            },
        };
        machine.activate();
        machine
    }

    fn activate(&mut self) {
        let features = self.device.spec().features;
        let queues = [&self.rx, &self.tx, &self.events].map(|queue| queue.active_queue(features));
        let run = activation(&self.memory, &self.irq, features, queues);
        self.device.activate(run).unwrap();
    }

    fn send(&mut self, parts: &[&[u8]]) {
        let parts: Vec<_> = parts.iter().map(|bytes| Part::Readable(bytes)).collect();
        let head = self.tx.add(&parts);
        self.tx.kick();
        assert_eq!(self.tx.wait_used(&self.irq).unwrap().head, head);
    }

    /// Gives the device a buffer, and returns the packet that comes.
    fn recv(&mut self) -> (Header, Vec<u8>) {
        let head = self.rx.add(&[Part::Writable(RX_BUFFER)]);
        self.rx.kick();
        let used = self.rx.wait_used(&self.irq).expect("a packet");
        assert_eq!(used.head, head);
        let bytes = self.rx.bytes(head, 0);
        let (header, data) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::decode(header);
        let len = usize::try_from(header.len).unwrap();
        assert_eq!(usize::try_from(used.written).unwrap(), HEADER_BYTES + len);
        (header, data[..len].to_vec())
    }

    fn open(&mut self, port: u32) -> UnixStream {
        self.send(&[&guest(port, Op::Request).encode()]);
        assert_eq!(Op::of(self.recv().0.op), Some(Op::Response));
        self.dialled.recv().unwrap()
    }
}

#[test]
fn data_may_be_scattered_over_any_number_of_buffers() {
    let mut machine = Machine::start(None);
    let mut host = machine.open(1000);
    let header = data(1000, b"one two three").encode();
    let layouts: [&[&[u8]]; 4] = [
        &[&header, b"one two three"],
        &[&header, b"one ", b"two ", b"three"],
        &[&[header.as_slice(), b"one two three"].concat()],
        &[
            &header[..7],
            &header[7..],
            b"one two",
            b" three and what is beyond the packet",
        ],
    ];
    for parts in layouts {
        machine.send(parts);
        let mut bytes = [0; 13];
        host.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one two three");
    }
}

#[test]
fn a_buffer_may_have_its_header_apart() {
    let mut machine = Machine::start(None);
    let mut host = machine.open(1000);
    host.write_all(b"hello").unwrap();
    let header_bytes = u32::try_from(HEADER_BYTES).unwrap();
    let head = machine
        .rx
        .add(&[Part::Writable(header_bytes), Part::Writable(4096)]);
    machine.rx.kick();
    assert_eq!(machine.rx.wait_used(&machine.irq).unwrap().head, head);
    assert_eq!(&machine.rx.bytes(head, 1)[..5], b"hello");
}

#[test]
fn a_pause_keeps_connections_and_a_new_driver_loses_them() {
    let mut machine = Machine::start(None);
    let mut host = machine.open(1000);
    let stopped = machine.device.stop().unwrap();
    host.write_all(b"meanwhile").unwrap();
    let features = machine.device.spec().features;
    let run = activation(&machine.memory, &machine.irq, features, stopped.queues);
    machine.device.activate(run).unwrap();
    assert_eq!(machine.recv().1, b"meanwhile");

    machine.device.stop().unwrap();
    machine.rx = QueueDriver::new(&machine.memory, 0, 128);
    machine.tx = QueueDriver::new(&machine.memory, 1, 128);
    machine.events = QueueDriver::new(&machine.memory, 2, 16);
    machine.activate();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    machine.open(1000);
}

#[test]
fn a_restored_driver_hears_that_its_connections_are_gone_before_anything_else() {
    let saved = {
        let mut machine = Machine::start(None);
        machine.device.stop().unwrap();
        machine.device.save().unwrap()
    };
    let mut machine = Machine::start(Some(saved));
    let pending = machine
        .tx
        .add(&[Part::Readable(&guest(7, Op::Data).encode())]);
    machine.tx.kick();
    let head = machine.events.add(&[Part::Writable(4)]);
    machine.events.kick();
    assert_eq!(machine.events.wait_used(&machine.irq).unwrap().head, head);
    assert_eq!(machine.events.bytes(head, 0), [0; 4]);
    // What it says about a connection of before is answered after that.
    assert_eq!(machine.tx.wait_used(&machine.irq).unwrap().head, pending);
    assert_eq!(Op::of(machine.recv().0.op), Some(Op::Reset));
}

#[test]
fn packets_that_contradict_themselves_break_the_queue() {
    let too_long = Header {
        len: 65_537,
        ..guest(1, Op::Data)
    };
    let cases: [(&str, Vec<u8>); 3] = [
        ("a short header", vec![0; HEADER_BYTES - 1]),
        (
            "more data than the chain has",
            [data(1, b"four").encode().as_slice(), b"thr"].concat(),
        ),
        (
            "more data than a packet may have",
            [too_long.encode().as_slice(), &vec![0; 65_537]].concat(),
        ),
    ];
    for (what, bytes) in cases {
        let mut machine = Machine::start(None);
        machine.tx.add(&[Part::Readable(&bytes)]);
        machine.tx.kick();
        assert!(machine.irq.wait_needs_reset(), "{what}");
        machine.device.stop().unwrap();
    }
}

#[test]
fn data_outside_of_memory_ends_its_connection_and_no_device() {
    let mut machine = Machine::start(None);
    let mut lost = machine.open(1000);
    let mut kept = machine.open(1001);
    let beyond = 1 << 40;
    let header = data(1000, b"what is mapped").encode();
    let head = machine
        .tx
        .add(&[Part::Readable(&header), Part::ReadableAt(beyond, 14)]);
    machine.tx.kick();
    assert_eq!(machine.tx.wait_used(&machine.irq).unwrap().head, head);
    let (reset, _) = machine.recv();
    assert_eq!((Op::of(reset.op), reset.dst_port), (Some(Op::Reset), 1000));
    assert_eq!(lost.read(&mut [0; 1]).unwrap(), 0, "nothing was sent on");

    let header = data(1001, b"from memory").encode();
    machine.send(&[&header, b"from memory"]);
    let mut bytes = [0; 11];
    kept.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"from memory");
    machine.device.stop().unwrap();
}
