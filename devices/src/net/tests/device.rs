use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;

use super::super::{Lease, MacAddr, Net, NetConfig, NetStateV1};
use super::*;
use crate::device::{ActivateError, DeviceId, VirtioDevice};
use crate::rate_limit::{Limits, Rate};
use crate::registry::{BuildError, Position};
use crate::state::{StateBlob, StateError};
use crate::testing::{Descriptor, FakeInterrupt, Part, activation, guest_memory};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn config() -> NetConfig {
    NetConfig::new(DeviceId::new("net0"), Position(2), MAC)
}

/// Whole devices on their threads: the timer brings back what was held up.
#[test]
fn limited_card_moves_everything_in_the_end() {
    let rate = |per_second: u64| {
        Some(Rate {
            per_second: per_second.try_into().unwrap(),
            burst: 1.try_into().unwrap(),
        })
    };
    let limits = Limits {
        bytes: rate(1_000_000),
        operations: rate(5_000),
    };
    let limited = NetConfig {
        rx_limits: limits,
        tx_limits: limits,
        ..config()
    };
    let mut bench = Bench::new();
    let (tap, host) = wire();
    host.set_nonblocking(false).unwrap();
    (bench.card, bench.host) = (Net::build(&limited, vec![tap], None).unwrap(), host);
    bench.activate();
    for seed in 0..20 {
        bench.tx.add(&[Part::Readable(&frame(seed, 500))]);
        bench.rx.add(&[Part::Writable(1536)]);
    }
    bench.tx.kick();
    bench.rx.kick();
    for seed in 0..20 {
        assert_eq!(bench.on_the_wire(), frame(seed, 500));
        let sent = frame(seed, 400);
        assert_eq!(bench.receive(&sent), delivered(&sent, 1));
    }
    assert!(!bench.irq.is_reset_needed());
}

/// A DISCOVER as a guest sends it, virtio header included; addressed to all.
fn discover() -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&MAC.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 1, 255]);
    let udp_bytes = u16::try_from(8 + message.len()).unwrap();
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend([0xff; 6]);
    frame.extend(MAC.0);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + udp_bytes).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend([0, 68, 0, 67]);
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

#[test]
fn dhcp_request_is_answered_by_the_card_and_stays_off_the_wire() {
    let lease = Lease {
        mac: MAC,
        address: [10, 1, 0, 2].into(),
        prefix_len: 24,
        gateway: [10, 1, 0, 1].into(),
        dns: Vec::new(),
        hostname: "slot1".to_owned(),
        mtu: None,
    };
    let serving = NetConfig {
        dhcp: Some(lease),
        ..config()
    };
    let mut bench = Bench::new();
    let (tap, host) = wire();
    host.set_nonblocking(false).unwrap();
    (bench.card, bench.host) = (Net::build(&serving, vec![tap], None).unwrap(), host);
    bench.activate();

    // Without buffers the answer waits; a flood of requests has an answer to the first few.
    for _ in 0..30 {
        bench.tx.add(&[Part::Readable(&discover())]);
    }
    let other = frame(1, 100);
    bench.tx.add(&[Part::Readable(&other)]);
    bench.tx.kick();
    assert_eq!(bench.on_the_wire(), other, "the only frame on the wire");
    for _ in 0..2 {
        bench.rx.add(&[Part::Writable(1536)]);
    }
    bench.rx.kick();
    for _ in 0..2 {
        let offer = bench.received();
        assert_eq!(offer[..HEADER_BYTES], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let message = &offer[HEADER_BYTES + 42..];
        assert_eq!(
            (message[0], &message[16..20]),
            (2, [10, 1, 0, 2].as_slice())
        );
    }
    bench.card.stop().unwrap();
    bench.host.set_nonblocking(true).unwrap();
    assert!(receive_all(&bench.host).is_empty());
}

fn card(tap: Tap) -> Net {
    Net::build(&config(), vec![tap], None).unwrap()
}

/// A card on a wire, and the driver's queues.
struct Bench {
    card: Net,
    host: UnixDatagram,
    memory: Memory,
    irq: Arc<FakeInterrupt>,
    rx: QueueDriver,
    tx: QueueDriver,
    control: QueueDriver,
}

impl Bench {
    fn new() -> Self {
        let (tap, host) = wire();
        // A reader that waits: the card answers on its own thread.
        host.set_nonblocking(false).unwrap();
        let memory = guest_memory();
        Self {
            card: card(tap),
            host,
            irq: FakeInterrupt::new(),
            rx: QueueDriver::new(&memory, 0, 256),
            tx: QueueDriver::new(&memory, 1, 256),
            control: QueueDriver::new(&memory, 2, 64),
            memory,
        }
    }

    fn activate(&mut self) {
        let features = self.card.spec().features;
        let queues = [
            self.rx.active_queue(features),
            self.tx.active_queue(features),
            self.control.active_queue(features),
        ];
        self.card
            .activate(activation(&self.memory, &self.irq, features, queues))
            .unwrap();
    }

    fn send(&mut self, frame: &[u8]) -> Vec<u8> {
        self.tx.add(&[Part::Readable(frame)]);
        self.tx.kick();
        self.on_the_wire()
    }

    fn on_the_wire(&self) -> Vec<u8> {
        let mut received = vec![0; 2048];
        let bytes = self.host.recv(&mut received).unwrap();
        received.truncate(bytes);
        received
    }

    fn receive(&mut self, frame: &[u8]) -> Vec<u8> {
        self.host.send(frame).unwrap();
        self.received()
    }

    fn received(&mut self) -> Vec<u8> {
        let used = self
            .rx
            .wait_used(&*self.irq)
            .expect("a frame within ten seconds");
        self.rx.bytes(used.head, 0)[..usize::try_from(used.written).unwrap()].to_vec()
    }
}

#[test]
fn frames_pass_in_both_directions() {
    let mut bench = Bench::new();
    bench.activate();
    for seed in 0..20 {
        bench.rx.add(&[Part::Writable(1536)]);
        bench.rx.kick();
        let sent = frame(seed, 100);
        assert_eq!(bench.send(&sent), sent);
        assert_eq!(bench.receive(&sent), delivered(&sent, 1));
    }
    let counts = bench.card.counters().read();
    assert_eq!((counts.tx_frames, counts.rx_frames), (20, 20));
    assert_eq!((counts.tx_dropped, counts.rx_dropped), (0, 0));
}

#[test]
fn frame_that_came_before_any_buffer_is_received_after_a_kick() {
    let mut bench = Bench::new();
    bench.activate();
    let sent = frame(1, 200);
    bench.host.send(&sent).unwrap();
    // Passes through the card's loop, so that the card has seen the frame above.
    bench.send(&sent);

    bench.rx.add(&[Part::Writable(1536)]);
    bench.rx.kick();

    assert_eq!(bench.received(), delivered(&sent, 1));
}

#[test]
fn chains_that_were_there_before_activation_need_no_kick() {
    let mut bench = Bench::new();
    let sent = frame(2, 300);
    bench.rx.add(&[Part::Writable(1536)]);
    bench.tx.add(&[Part::Readable(&sent)]);

    bench.activate();

    assert_eq!(bench.on_the_wire(), sent);
    assert_eq!(bench.receive(&sent), delivered(&sent, 1));
}

#[test]
fn stop_and_activate_continue_where_the_card_was() {
    let mut bench = Bench::new();
    bench.activate();
    for seed in 0..5 {
        bench.rx.add(&[Part::Writable(1536)]);
        bench.rx.add(&[Part::Writable(1536)]);
        bench.rx.kick();
        let sent = frame(seed, 150);
        assert_eq!(bench.send(&sent), sent);
        assert_eq!(bench.receive(&sent), delivered(&sent, 1));

        let stopped = bench.card.stop().unwrap();

        let indices: Vec<u16> = stopped.queues.iter().map(|active| active.index).collect();
        assert_eq!(indices, [0, 1, 2]);
        for active in stopped.queues.iter().take(2) {
            // Chains that wait for a frame are back in the ring.
            assert_eq!(active.queue.next_avail(), u16::from(seed) + 1);
            assert_eq!(active.queue.next_used(), u16::from(seed) + 1);
        }
        let features = bench.card.spec().features;
        let run = activation(&bench.memory, &bench.irq, features, stopped.queues);
        bench.card.activate(run).unwrap();
    }
    assert!(!bench.irq.is_reset_needed());
}

#[test]
fn garbage_asks_for_a_reset_after_which_the_card_works_again() {
    let mut bench = Bench::new();
    bench.activate();
    bench.tx.write_descriptor(
        7,
        Descriptor {
            address: u64::MAX,
            length: u32::MAX,
            flags: 0xffff,
            next: 0xffff,
        },
    );
    bench.tx.publish(7);
    bench.tx.kick();
    assert!(bench.irq.wait_needs_reset());
    bench.tx.kick();

    bench.card.stop().unwrap();
    bench.irq = FakeInterrupt::new();
    bench.rx = QueueDriver::new(&bench.memory, 0, 256);
    bench.tx = QueueDriver::new(&bench.memory, 1, 256);
    bench.control = QueueDriver::new(&bench.memory, 2, 64);
    bench.activate();

    let sent = frame(3, 400);
    assert_eq!(bench.send(&sent), sent);
    assert!(!bench.irq.is_reset_needed());
}

#[test]
fn driver_that_asks_for_a_late_interrupt_gets_one_for_the_burst() {
    let mut bench = Bench::new();
    for seed in 0..8 {
        bench.tx.add(&[Part::Readable(&frame(seed, 60))]);
    }
    // Index of the used element to interrupt at: the sixth.
    let used_event = bench.tx.available_ring() + 4 + 2 * u64::from(bench.tx.size());
    vm_memory::Bytes::write_obj(&bench.memory, 5_u16, vm_memory::GuestAddress(used_event)).unwrap();

    bench.activate();
    for seed in 0..8 {
        assert_eq!(bench.on_the_wire(), frame(seed, 60));
    }
    bench.card.stop().unwrap();

    assert_eq!(bench.irq.queue_interrupts(), 1);
}

#[test]
fn driver_that_wants_no_interrupt_gets_none() {
    let mut bench = Bench::new();
    for seed in 0..8 {
        bench.tx.add(&[Part::Readable(&frame(seed, 60))]);
    }
    let used_event = bench.tx.available_ring() + 4 + 2 * u64::from(bench.tx.size());
    vm_memory::Bytes::write_obj(&bench.memory, 8_u16, vm_memory::GuestAddress(used_event)).unwrap();

    bench.activate();
    for seed in 0..8 {
        assert_eq!(bench.on_the_wire(), frame(seed, 60));
    }
    bench.card.stop().unwrap();

    assert_eq!(bench.irq.queue_interrupts(), 0);
}

#[test]
fn driver_without_event_index_suppresses_interrupts_by_flag() {
    for (flag, interrupts) in [(0_u16, 1), (1, 0)] {
        let mut bench = Bench::new();
        bench.tx.add(&[Part::Readable(&frame(0, 60))]);
        let avail = vm_memory::GuestAddress(bench.tx.available_ring());
        vm_memory::Bytes::write_obj(&bench.memory, flag, avail).unwrap();
        let features = bench.card.spec().features & !(1 << VIRTIO_RING_F_EVENT_IDX);
        let queues = [
            bench.rx.active_queue(features),
            bench.tx.active_queue(features),
        ];
        bench
            .card
            .activate(activation(&bench.memory, &bench.irq, features, queues))
            .unwrap();

        bench.on_the_wire();
        bench.card.stop().unwrap();

        assert_eq!(bench.irq.queue_interrupts(), interrupts, "flag {flag}");
    }
}

#[test]
fn second_activation_is_refused() {
    let mut bench = Bench::new();
    bench.activate();
    let features = bench.card.spec().features;
    let run = activation(&bench.memory, &bench.irq, features, []);
    assert!(matches!(
        bench.card.activate(run),
        Err(ActivateError::AlreadyActive)
    ));
}

#[test]
fn activation_without_transmit_queue_is_refused() {
    let mut bench = Bench::new();
    let features = bench.card.spec().features;
    let run = activation(
        &bench.memory,
        &bench.irq,
        features,
        [bench.rx.active_queue(features)],
    );
    let refused = bench.card.activate(run);
    assert!(matches!(
        refused,
        Err(ActivateError::MissingQueues {
            enabled: 1,
            needed: 2
        })
    ));
}

#[test]
fn stop_of_an_idle_card_returns_no_queues() {
    assert!(Bench::new().card.stop().unwrap().queues.is_empty());
}

#[test]
fn features_are_those_of_a_modern_card() {
    let card = card(wire().0);
    let features = card.spec().features;
    for bit in [
        VIRTIO_F_VERSION_1,
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_RING_F_EVENT_IDX,
    ] {
        assert_ne!(features & (1 << bit), 0, "bit {bit}");
    }
    assert_eq!(
        features & (1 << VIRTIO_NET_F_MTU),
        0,
        "no MTU was configured"
    );
}

#[test]
fn configuration_space_holds_mac_status_pairs_and_mtu() {
    let config = NetConfig {
        mtu: Some(9000),
        ..config()
    };
    let mut card = Net::build(&config, vec![wire().0], None).unwrap();
    card.write_config(0, &[0xff; 64]);
    let mut space = [0xaa; 16];
    card.read_config(0, &mut space);
    assert_eq!(
        space,
        [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0x28, 0x23, 0, 0, 0, 0]
    );
    assert_ne!(card.spec().features & (1 << VIRTIO_NET_F_MTU), 0);

    let mut beyond = [0xaa; 4];
    card.read_config(u64::MAX - 1, &mut beyond);
    assert_eq!(beyond, [0; 4]);
    card.read_config(10, &mut beyond);
    assert_eq!(beyond, [0x28, 0x23, 0, 0]);
}

#[test]
fn mtu_below_the_standards_minimum_is_refused() {
    let config = NetConfig {
        mtu: Some(67),
        ..config()
    };
    let refused = Net::build(&config, vec![wire().0], None);
    assert!(matches!(refused, Err(BuildError::Unfit { .. })));
}

#[test]
fn no_tap_and_more_than_eight_are_refused() {
    let many = (0..9).map(|_| wire().0).collect();
    for taps in [vec![], many] {
        let refused = Net::build(&config(), taps, None);
        assert!(matches!(refused, Err(BuildError::Unfit { .. })));
    }
}

#[test]
fn saved_card_is_restored_equal() {
    let saved = card(wire().0).save().unwrap();
    let restored = Net::build(&config(), vec![wire().0], Some(saved.clone())).unwrap();
    assert_eq!(restored.save().unwrap(), saved);
}

#[test]
fn active_card_is_not_saved() {
    let mut bench = Bench::new();
    bench.activate();
    assert!(matches!(bench.card.save(), Err(StateError::Active)));
}

#[test]
fn saved_state_that_does_not_fit_is_refused() {
    let good = NetStateV1 {
        queue_pairs: 1,
        active_pairs: 1,
        offloads: 1 << VIRTIO_NET_F_GUEST_CSUM,
    };
    let two = NetStateV1 {
        queue_pairs: 2,
        ..good
    };
    let none_active = NetStateV1 {
        active_pairs: 0,
        ..good
    };
    let more_active = NetStateV1 {
        active_pairs: 2,
        ..good
    };
    let foreign_offload = NetStateV1 {
        offloads: 1 << VIRTIO_NET_F_MTU,
        ..good
    };
    let fields = [two, none_active, more_active, foreign_offload];
    let fields = fields.map(|state| StateBlob::encode("net", 1, &state).unwrap());
    let version = StateBlob::encode("net", 2, &good).unwrap();
    let kind = StateBlob::encode("blk", 1, &good).unwrap();
    let good = StateBlob::encode("net", 1, &good).unwrap();
    let damaged = StateBlob {
        bytes: Vec::new(),
        ..good.clone()
    };
    Net::build(&config(), vec![wire().0], Some(good)).unwrap();
    for saved in fields.into_iter().chain([version, kind, damaged]) {
        let refused = Net::build(&config(), vec![wire().0], Some(saved.clone()));
        assert!(
            matches!(refused, Err(BuildError::State { .. })),
            "{saved:?}"
        );
    }
}
