use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use proptest::prelude::*;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_MQ,
};

use super::super::control::{Ack, Command, Control};
use super::super::{Burst, MacAddr, Net, NetConfig};
use super::*;
use crate::device::{DeviceId, VirtioDevice};
use crate::fault::QueueFault;
use crate::registry::Position;
use crate::testing::fuzz::scribble;
use crate::testing::{FakeInterrupt, Part, activation, guest_memory};

const SET_PAIRS: [u8; 2] = [4, 0];
const SET_OFFLOADS: [u8; 2] = [5, 0];
const OK: u8 = 0;
const ERR: u8 = 1;

/// A card of two pairs, each pair's other end, and the driver's queues: both pairs', then control.
struct Bench {
    card: Net,
    hosts: [UnixDatagram; 2],
    memory: Memory,
    irq: Arc<FakeInterrupt>,
    queues: [QueueDriver; 5],
    features: u64,
}

impl Bench {
    fn new() -> Self {
        let config = NetConfig::new(
            DeviceId::new("net0"),
            Position(8),
            MacAddr([2, 0, 0, 0, 0, 1]),
        );
        let (taps, hosts): (Vec<_>, Vec<_>) = [wire(), wire()].into_iter().unzip();
        for host in &hosts {
            // A reader that waits: the card answers on its own threads.
            host.set_nonblocking(false).unwrap();
        }
        let memory = guest_memory();
        let queue = |index| QueueDriver::new(&memory, index, if index == 4 { 64 } else { 256 });
        let card = Net::build(&config, taps, None).unwrap();
        Self {
            features: card.spec().features,
            card,
            hosts: hosts.try_into().unwrap(),
            irq: FakeInterrupt::new(),
            queues: [0, 1, 2, 3, 4].map(queue),
            memory,
        }
    }

    fn activate(&mut self) {
        let queues = self
            .queues
            .iter()
            .map(|queue| queue.active_queue(self.features));
        let run = activation(&self.memory, &self.irq, self.features, queues);
        self.card.activate(run).unwrap();
    }

    fn stop_and_activate(&mut self) {
        let queues = self.card.stop().unwrap().queues;
        let run = activation(&self.memory, &self.irq, self.features, queues);
        self.card.activate(run).unwrap();
    }

    /// Sends a command as Linux does, in three buffers, and waits for its outcome.
    fn command(&mut self, command: [u8; 2], argument: &[u8]) -> u8 {
        let control = &mut self.queues[4];
        control.add(&[
            Part::Readable(&command),
            Part::Readable(argument),
            Part::Writable(1),
        ]);
        control.kick();
        let used = control.wait_used(&*self.irq).expect("an outcome");
        assert_eq!(used.written, 1);
        control.bytes(used.head, 2)[0]
    }

    fn set_pairs(&mut self, pairs: u16) -> u8 {
        self.command(SET_PAIRS, &pairs.to_le_bytes())
    }

    fn offer(&mut self, pair: usize, frame: &[u8]) {
        let tx = &mut self.queues[2 * pair + 1];
        tx.add(&[Part::Readable(frame)]);
        tx.kick();
    }

    fn on_the_wire(&self, pair: usize) -> Vec<u8> {
        let mut received = vec![0; 2048];
        let bytes = self.hosts[pair].recv(&mut received).unwrap();
        received.truncate(bytes);
        received
    }

    fn receive(&mut self, pair: usize, frame: &[u8]) -> Vec<u8> {
        let rx = &mut self.queues[2 * pair];
        rx.add(&[Part::Writable(1536)]);
        rx.kick();
        self.hosts[pair].send(frame).unwrap();
        let used = rx.wait_used(&*self.irq).expect("a frame");
        rx.bytes(used.head, 0)[..usize::try_from(used.written).unwrap()].to_vec()
    }
}

#[test]
fn second_pair_is_served_from_when_the_driver_counts_it_in_until_it_leaves_it_out() {
    let mut bench = Bench::new();
    bench.activate();
    let early = frame(1, 100);
    bench.offer(1, &early);
    // Passes through the card's loop; the second pair's frame would have had the time.
    assert_eq!(bench.set_pairs(1), OK);
    bench.hosts[1].set_nonblocking(true).unwrap();
    assert!(receive_all(&bench.hosts[1]).is_empty());
    bench.hosts[1].set_nonblocking(false).unwrap();

    assert_eq!(bench.set_pairs(2), OK);
    assert_eq!(bench.on_the_wire(1), early, "what waited needs no kick");
    for pair in [0, 1] {
        let sent = frame(2, 200);
        bench.offer(pair, &sent);
        assert_eq!(bench.on_the_wire(pair), sent);
        assert_eq!(bench.receive(pair, &sent), delivered(&sent, 1));
    }

    assert_eq!(bench.set_pairs(1), OK);
    bench.offer(1, &early);
    bench.card.stop().unwrap();
    bench.hosts[1].set_nonblocking(true).unwrap();
    assert!(receive_all(&bench.hosts[1]).is_empty());
    assert!(!bench.irq.is_reset_needed());
}

#[test]
fn pairs_that_do_not_exist_are_refused() {
    let mut bench = Bench::new();
    bench.activate();
    for pairs in [0, 3, 0x8000, u16::MAX] {
        assert_eq!(bench.set_pairs(pairs), ERR, "{pairs}");
    }
    let sent = frame(3, 60);
    bench.offer(0, &sent);
    assert_eq!(bench.on_the_wire(0), sent);
}

#[test]
fn pair_whose_queues_are_not_enabled_is_refused() {
    let mut bench = Bench::new();
    let enabled = [0, 1, 2, 4].map(|index: usize| &bench.queues[index]);
    let queues = enabled.map(|queue| queue.active_queue(bench.features));
    let run = activation(&bench.memory, &bench.irq, bench.features, queues);
    bench.card.activate(run).unwrap();
    assert_eq!(bench.set_pairs(2), ERR);
    assert_eq!(bench.card.stop().unwrap().queues.len(), 4);
    assert!(!bench.irq.is_reset_needed());
}

#[test]
fn pairs_survive_a_pause_and_not_a_reset() {
    let mut bench = Bench::new();
    bench.activate();
    assert_eq!(bench.set_pairs(2), OK);
    bench.stop_and_activate();
    let sent = frame(4, 90);
    bench.offer(1, &sent);
    assert_eq!(bench.on_the_wire(1), sent);

    bench.card.stop().unwrap();
    bench.queues = [0, 1, 2, 3, 4].map(|index: u16| {
        QueueDriver::new(&bench.memory, index, if index == 4 { 64 } else { 256 })
    });
    bench.activate();
    bench.offer(1, &sent);
    assert_eq!(bench.set_pairs(1), OK);
    bench.card.stop().unwrap();
    bench.hosts[1].set_nonblocking(true).unwrap();
    assert!(receive_all(&bench.hosts[1]).is_empty(), "one pair again");
}

#[test]
fn saved_pairs_are_served_again_in_a_restored_card() {
    let mut bench = Bench::new();
    bench.activate();
    assert_eq!(bench.set_pairs(2), OK);
    let queues = bench.card.stop().unwrap().queues;
    let saved = bench.card.save().unwrap();
    let fresh = Bench::new();
    let config = NetConfig::new(
        DeviceId::new("net0"),
        Position(8),
        MacAddr([2, 0, 0, 0, 0, 2]),
    );
    let (taps, hosts): (Vec<_>, Vec<_>) = [wire(), wire()].into_iter().unzip();
    drop(fresh);
    bench.card = Net::build(&config, taps, Some(saved)).unwrap();
    bench.hosts = hosts.try_into().unwrap();
    bench.hosts[1].set_nonblocking(false).unwrap();
    let run = activation(&bench.memory, &bench.irq, bench.features, queues);
    bench.card.activate(run).unwrap();
    let sent = frame(5, 70);
    bench.offer(1, &sent);
    assert_eq!(bench.on_the_wire(1), sent);
}

#[test]
fn driver_without_multiple_queues_finds_the_control_queue_behind_the_first_pair() {
    let mut bench = Bench::new();
    bench.features &= !(1 << VIRTIO_NET_F_MQ);
    bench.queues[4] = QueueDriver::new(&bench.memory, 2, 64);
    let enabled = [0, 1, 4].map(|index: usize| &bench.queues[index]);
    let queues = enabled.map(|queue| queue.active_queue(bench.features));
    let run = activation(&bench.memory, &bench.irq, bench.features, queues);
    bench.card.activate(run).unwrap();
    let offloads = 1_u64 << VIRTIO_NET_F_GUEST_CSUM;
    assert_eq!(bench.command(SET_OFFLOADS, &offloads.to_le_bytes()), OK);
    assert_eq!(bench.set_pairs(1), OK);
    assert_eq!(bench.set_pairs(2), ERR);
    assert_eq!(bench.card.stop().unwrap().queues.len(), 3);
}

#[test]
fn only_offloads_that_were_negotiated_can_be_switched() {
    let mut bench = Bench::new();
    bench.features &= !(1 << VIRTIO_NET_F_GUEST_TSO4);
    bench.activate();
    let outcomes = [
        (0, OK),
        (1_u64 << VIRTIO_NET_F_GUEST_CSUM, OK),
        (1 << VIRTIO_NET_F_GUEST_TSO4, ERR),
        (1 << VIRTIO_NET_F_HOST_TSO4, ERR),
        (u64::MAX, ERR),
    ];
    for (offloads, outcome) in outcomes {
        let found = bench.command(SET_OFFLOADS, &offloads.to_le_bytes());
        assert_eq!(found, outcome, "{offloads:#x}");
    }
}

#[test]
fn unknown_short_and_long_commands_are_refused() {
    let mut bench = Bench::new();
    bench.activate();
    for (command, argument) in [
        ([0, 0], vec![1]),
        ([4, 1], vec![0; 8]),
        ([9, 9], vec![0; 4]),
        (SET_PAIRS, vec![1]),
        (SET_PAIRS, vec![1, 0, 0]),
        (SET_OFFLOADS, vec![0; 7]),
        (SET_OFFLOADS, vec![0; 4096]),
    ] {
        assert_eq!(bench.command(command, &argument), ERR, "{command:?}");
    }
    assert!(!bench.irq.is_reset_needed());
}

/// A control queue by itself, with one chain in it.
fn process(parts: &[Part<'_>]) -> Result<Burst, QueueFault> {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 2, 64);
    driver.add(parts);
    let ring = Ring::new(driver.active_queue(ALL_FEATURES), memory.clone());
    Control::new(ring).process(|_| Ack::Done)
}

#[test]
fn chains_that_are_no_commands_are_faults() {
    let no_status = process(&[Part::Readable(&[4, 0, 1, 0])]);
    assert!(matches!(no_status, Err(QueueFault::Malformed { .. })));
    let behind = process(&[
        Part::Readable(&SET_PAIRS),
        Part::Writable(1),
        Part::Readable(&[1, 0]),
    ]);
    assert!(matches!(behind, Err(QueueFault::Malformed { .. })));
    let many = process(&[const { Part::Readable(&[0]) }; 17]);
    assert!(matches!(many, Err(QueueFault::Malformed { .. })));
}

#[test]
fn flood_of_commands_is_served_in_bursts() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 2, 64);
    for _ in 0..6 {
        driver.add(&[
            Part::Readable(&SET_PAIRS),
            Part::Readable(&[1, 0]),
            Part::Writable(1),
        ]);
    }
    let ring = Ring::new(driver.active_queue(ALL_FEATURES), memory.clone());
    let mut control = Control::new(ring);
    let mut seen = Vec::new();
    let mut obey = |command| {
        seen.push(command);
        Ack::Done
    };
    assert_eq!(control.process(&mut obey).unwrap(), Burst::More);
    assert_eq!(control.process(&mut obey).unwrap(), Burst::Idle);
    assert_eq!(seen, [Command::SetPairs(1); 6]);
}

proptest! {
    #[test]
    fn garbage_in_the_control_queue_faults_or_is_answered(input: Vec<u8>) {
        let memory = guest_memory();
        let driver = QueueDriver::new(&memory, 2, 16);
        scribble(&memory, &driver, &input);
        let ring = Ring::new(driver.active_queue(ALL_FEATURES), memory.clone());
        let mut control = Control::new(ring);
        for _ in 0..64 {
            if !matches!(control.process(|_| Ack::Refused), Ok(Burst::More)) {
                break;
            }
        }
    }
}
