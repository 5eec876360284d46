//! Entry points of the fuzzers: the same functions run under property tests on any machine, and
//! under a coverage-guided fuzzer where there is one. They take bytes, never panic, and leave
//! nothing behind.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use super::conformance::{Subject, start_and_stop, subjects};
use super::{FakeInterrupt, MmioDriver, QueueDriver, Reads, activation, guest_memory};
use crate::bus::BusDevice;
use crate::credentials::{Parser, Request};
use crate::device::Memory;
use crate::fs::refuse_all;
use crate::legacy::ioapic::{self, IoApic, Line, MsiMessage, RouteSink};
use crate::net::testing::answer_dhcp;
use crate::net::{Lease, MacAddr};
use crate::notify;
use crate::rng::Requests;
use crate::state::StateBlob;
use crate::transport::TransportState;
use crate::transport::registers::{CONFIG, PAGE_BYTES};
use crate::vsock::{Cid, Dial, HEADER_BYTES, Header, Mux, VsockHost};

/// Size of a fuzzed queue: small, so that garbage often points at something.
const QUEUE_SIZE: u16 = 16;

/// Where most small addresses that a fuzzer finds lead.
const BUFFERS: u64 = 0x40_0000;

/// Most rounds of queue processing in one run.
const ROUNDS: usize = 4;

/// Any register access to the device that the first byte of `input` picks, then a normal start.
pub fn registers(input: &[u8]) {
    if let Some((subject, rest)) = pick(input) {
        let mut driver = subject.driver();
        access_registers(&mut driver, rest);
        driver.start();
    }
}

/// Garbage rings on every subject whose name starts with `kind`.
pub fn queues(kind: &str, input: &[u8]) {
    for subject in subjects()
        .iter()
        .filter(|subject| subject.name.starts_with(kind))
    {
        device(subject, input);
    }
}

/// Notifications of a service manager: what is understood is the same in one piece and byte by
/// byte, and every text of it can be shown.
pub fn notification(input: &[u8]) {
    let mut whole = Vec::new();
    let mut parser = notify::Parser::default();
    parser.feed(input, |report| whole.push(report));
    parser.end(|report| whole.push(report));
    let mut bytewise = Vec::new();
    let mut parser = notify::Parser::default();
    for byte in input {
        parser.feed(&[*byte], |report| bytewise.push(report));
    }
    parser.end(|report| bytewise.push(report));
    assert_eq!(whole, bytewise);
    for report in whole {
        if let notify::Report::Status(text) = report {
            assert!(text.len() <= notify::MAX_STATUS_BYTES && !text.contains(char::is_control));
        }
    }
}

/// A request for credentials: the outcome is the same in one piece and byte by byte, and a name
/// that is accepted is one that a file can have.
pub fn credential_request(input: &[u8]) {
    let whole = Parser::default().feed(input);
    let mut parser = Parser::default();
    let pieces = input.chunks(1).find_map(|byte| parser.feed(byte));
    assert_eq!(whole, pieces, "pieces decide nothing");
    if let Some(Ok(Request::Get(name))) = whole {
        let name = name.as_str();
        assert!(!name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']));
        assert!(name != "." && name != "..");
    }
}

/// Packets of a guest to a socket device without rings: 44 bytes of header each, made likely to
/// find a connection, and as much data as it says. Takes what there is for the guest in between.
pub fn vsock_packets(input: &[u8]) {
    const DATA: [u8; 256] = [0; 256];
    let mut room = [0; 64];
    let mut mux = Mux::new(Cid::new(3).unwrap(), loopback()).unwrap();
    for bytes in input.chunks_exact(HEADER_BYTES) {
        let mut header = Header::decode(bytes.try_into().unwrap());
        // One bit decides whether a field is garbage: garbage everywhere opens no connection.
        let odd = header.fwd_cnt.to_le_bytes();
        let plain = |bit: u8| odd[3] & 1 << bit == 0;
        header.src_cid = if plain(0) { 3 } else { header.src_cid };
        header.dst_cid = if plain(1) { 2 } else { header.dst_cid };
        header.kind = if plain(2) { 1 } else { header.kind };
        header.op %= if plain(3) { 9 } else { u16::MAX };
        header.src_port %= 4;
        header.dst_port %= 2;
        header.len %= 256;
        if mux.can_receive() {
            mux.receive(&header, &DATA[..usize::try_from(header.len).unwrap()]);
        }
        mux.poll();
        if let Some(header) = mux.next(&VolatileSlice::from(room.as_mut_slice())) {
            assert!(header.len <= 64, "data fits into its room");
        }
    }
    assert!(mux.connections() <= 8, "one for each pair of ports");
}

/// `input` as what a guest sends to its DHCP server: a whole frame, and a message in a sound frame.
pub fn dhcp(input: &[u8]) {
    let lease = Lease {
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        address: [10, 1, 0, 2].into(),
        prefix_len: 24,
        gateway: [10, 1, 0, 1].into(),
        dns: vec![[10, 1, 0, 1].into()],
        hostname: "slot1".to_owned(),
        mtu: Some(1500),
    };
    answer_dhcp(&lease, input);
    let message = input.get(..1400).unwrap_or(input);
    let udp_bytes = u16::try_from(8 + message.len()).unwrap();
    let mut frame = vec![0xff; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + udp_bytes).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend([0, 68, 0, 67]);
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    if let Some(answer) = answer_dhcp(&lease, &frame) {
        assert!((342..=1514).contains(&answer.len()));
    }
}

/// `input` as the saved state of the device that its first byte picks, and of its transport. What
/// is accepted has to run, and to save as the same.
pub fn saved_state(input: &[u8]) {
    let Some((subject, rest)) = pick(input) else {
        return;
    };
    let blob = StateBlob {
        bytes: rest.to_vec(),
        ..subject.build(None).save().unwrap()
    };
    if let Ok(mut device) = subject.try_build(Some(blob)) {
        start_and_stop(&subject, device.as_mut());
    }
    let mut driver = subject.driver();
    let decoded = postcard::from_bytes::<TransportState>(rest);
    if let Ok(state) = decoded
        .map_err(drop)
        .and_then(|state| restore(&mut driver, state))
    {
        assert_eq!(driver.transport.save().unwrap(), state);
        // It may fail on queues that the device does not take; a reset recovers.
        let _ = driver.transport.resume();
        driver.start();
    }
}

/// Reads and writes of the I/O APIC's registers and ends of interrupts, then a restore of what
/// came of it.
pub fn ioapic(input: &[u8]) {
    let Some((&count, input)) = input.split_first() else {
        return;
    };
    let mut ioapic = IoApic::new(count, Box::new(Nowhere));
    for step in input.chunks_exact(6) {
        let [kind, selected, value @ ..] = step else {
            continue;
        };
        let line = if kind & 4 == 0 {
            Line::Idle
        } else {
            Line::Asserted
        };
        match kind % 4 {
            0 => ioapic.eoi(*selected),
            1 => ioapic.set_line(*selected, line),
            _ => {
                ioapic.write(ioapic::IOREGSEL, &[*selected]);
                ioapic.write(ioapic::IOWIN, value);
            }
        }
        ioapic.read(u64::from(*selected), &mut [0; 4]);
    }
    let state = ioapic.save();
    let mut restored = IoApic::new(count, Box::new(Nowhere));
    restored.restore(&state).unwrap();
    assert_eq!(restored.save(), state);
}

struct Nowhere;

impl RouteSink for Nowhere {
    fn update(&mut self, _pin: u8, _message: Option<MsiMessage>) {}

    fn deliver(&mut self, _pin: u8, _message: MsiMessage) {}
}

fn restore(driver: &mut MmioDriver, state: TransportState) -> Result<TransportState, ()> {
    driver.transport.restore(&state).map_err(drop)?;
    Ok(state)
}

fn pick(input: &[u8]) -> Option<(Subject, &[u8])> {
    let (first, rest) = input.split_first()?;
    let mut subjects = subjects();
    let index = usize::from(*first & 0x7f) % subjects.len();
    let reads = match *first & 0x80 {
        0 => Reads::Exit,
        _ => Reads::Page,
    };
    Some((subjects.swap_remove(index).reading(reads), rest))
}

/// Reads and writes registers of a device as `input` says: three bytes of head, then the data.
pub fn access_registers(driver: &mut MmioDriver, input: &[u8]) {
    let mut rest = input;
    while let [kind, low, high, tail @ ..] = rest {
        let width = [1, 2, 4, 4, 4, 4, 4, 8][usize::from(kind >> 1 & 7)].min(tail.len());
        let (data, after) = tail.split_at(width);
        let anywhere = u64::from(u16::from_le_bytes([*low, *high])) % (PAGE_BYTES + 16);
        // Most accesses go to aligned registers: there is little to find elsewhere.
        let offset = if kind & 0x80 == 0 {
            (anywhere % CONFIG) & !3
        } else {
            anywhere
        };
        if kind & 1 == 0 {
            driver.write_bytes(offset, data);
        } else {
            let mut read = data.to_vec();
            driver.read_bytes(offset, &mut read);
        }
        rest = after;
    }
}

/// Writes `input` over the rings and descriptors of `queue`: descriptor table, available ring and
/// the first buffers, in this order.
pub fn scribble(memory: &Memory, queue: &QueueDriver, input: &[u8]) {
    let table = 16 * usize::from(queue.size());
    let ring = 6 + 2 * usize::from(queue.size());
    let (descriptors, rest) = input.split_at(input.len().min(table));
    let (available, buffers) = rest.split_at(rest.len().min(ring));
    let areas = [
        (descriptors, queue.descriptor_table()),
        (available, queue.available_ring()),
        (buffers, BUFFERS),
    ];
    for (bytes, address) in areas {
        memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }
}

/// A whole device on garbage queues: activated with the features that the first bytes of `input`
/// pick, stopped, and brought back with fresh queues.
pub fn device(subject: &Subject, input: &[u8]) {
    let mut device = subject.build(None);
    let memory = guest_memory();
    let irq = FakeInterrupt::new();
    let (picked, input) = input.split_at_checked(8).unwrap_or((&[0xff; 8], input));
    let picked = picked
        .iter()
        .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    let features = device.spec().features & picked | 1 << VIRTIO_F_VERSION_1;
    let count = u16::try_from(device.spec().queue_sizes.len()).unwrap();
    let share = input.len() / usize::from(count);
    let queues = (0..count).map(|index| {
        let queue = QueueDriver::new(&memory, index, QUEUE_SIZE);
        scribble(
            &memory,
            &queue,
            &input[usize::from(index) * share..][..share],
        );
        queue.kick();
        queue.active_queue(features)
    });
    device
        .activate(activation(&memory, &irq, features, queues))
        .unwrap();
    assert_eq!(
        device.stop().unwrap().queues.len(),
        usize::from(count),
        "{}",
        subject.name
    );
    start_and_stop(subject, device.as_mut());
}

/// The entropy source's queue logic on a garbage queue.
pub fn rng_requests(input: &[u8]) {
    let memory = guest_memory();
    let queue = QueueDriver::new(&memory, 0, QUEUE_SIZE);
    scribble(&memory, &queue, input);
    let mut requests = Requests::new(0, queue.queue());
    for _ in 0..ROUNDS {
        if !matches!(requests.process(&memory), Ok(served) if served.again) {
            break;
        }
    }
}

/// The answers of a share that nobody serves, on a garbage queue.
pub fn fs_refusals(input: &[u8]) {
    let memory = guest_memory();
    let queue = QueueDriver::new(&memory, 1, QUEUE_SIZE);
    scribble(&memory, &queue, input);
    let mut active = queue.active_queue(0);
    for _ in 0..ROUNDS {
        if !matches!(refuse_all(&mut active, &memory), Ok(refused) if refused.again) {
            break;
        }
    }
}

/// The host's side of a socket device on which every port leads back to itself.
fn loopback() -> VsockHost {
    VsockHost {
        dial: Some(Box::new(Loopback(Vec::new()))),
        ..VsockHost::default()
    }
}

#[derive(Debug)]
struct Loopback(Vec<UnixStream>);

impl Dial for Loopback {
    fn dial(&mut self, port: u32) -> io::Result<UnixStream> {
        let (near, far) = UnixStream::pair()?;
        // Every other port has a program that never reads; the rest hang up at once.
        if port.is_multiple_of(2) {
            far.set_nonblocking(true)?;
            (&far).write_all(b"hello")?;
            self.0.push(far);
        }
        Ok(near)
    }
}
