use std::sync::Arc;

use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::device::{ActivateError, DeviceId, VirtioDevice};
use crate::fault::QueueFault;
use crate::registry::Position;
use crate::state::StateBlob;
use crate::testing::{FakeInterrupt, Part, QueueDriver, Sink, activation, guest_memory};

fn console(sink: &Sink) -> (Console, Arc<Input>) {
    console_from(sink, None)
}

fn console_from(sink: &Sink, saved: Option<StateBlob>) -> (Console, Arc<Input>) {
    let config = ConsoleConfig {
        id: DeviceId::new("console0"),
        position: Position(11),
    };
    let input = Arc::new(Input::new().unwrap());
    let host = ConsoleHost {
        input: Arc::clone(&input),
        output: Box::new(sink.clone()),
    };
    (Console::build(&config, host, saved).unwrap(), input)
}

#[test]
fn every_buffer_of_a_chain_is_shown_in_order() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let mut sink = Sink::new(usize::MAX);
    driver.add(&[Part::Readable(b"hello "), Part::Readable(b"world")]);
    driver.add_indirect(&[Part::Readable(b", again")]);
    let mut transmit = Transmit::new(1, driver.queue(), Vec::new());
    transmit.process(&memory, &mut sink).unwrap();
    assert_eq!(sink.bytes(), b"hello world, again");
    assert_eq!(driver.take_used().unwrap().written, 0);
}

#[test]
fn output_waits_for_room_and_is_not_lost() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let mut sink = Sink::new(3);
    driver.add(&[Part::Readable(b"hello")]);
    driver.add(&[Part::Readable(b"world")]);
    let mut transmit = Transmit::new(1, driver.queue(), Vec::new());
    assert!(!transmit.process(&memory, &mut sink).unwrap().again);
    assert_eq!(sink.bytes(), b"hel");
    sink.make_room(usize::MAX);
    transmit.process(&memory, &mut sink).unwrap();
    assert_eq!(sink.bytes(), b"helloworld");
}

#[test]
fn input_waits_for_buffers_and_fills_them() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    let input = Input::new().unwrap();
    let mut receive = Receive::new(0, driver.queue());
    input.enqueue(b"hello world");
    receive.process(&memory, &input).unwrap();
    assert!(driver.take_used().is_none());
    let first = driver.add(&[Part::Writable(2), Part::Writable(4)]);
    let second = driver.add(&[Part::Writable(64)]);
    driver.add(&[Part::Writable(64)]);
    receive.process(&memory, &input).unwrap();
    assert_eq!(driver.take_used().unwrap().written, 6);
    assert_eq!(driver.take_used().unwrap().written, 5);
    assert!(driver.take_used().is_none(), "the third waits for input");
    assert_eq!(driver.bytes(first, 0), b"he");
    assert_eq!(driver.bytes(first, 1), b"llo ");
    assert_eq!(&driver.bytes(second, 0)[..5], b"world");
}

#[test]
fn buffers_of_the_wrong_kind_are_faults() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    driver.add(&[Part::Writable(1)]);
    let fault = Transmit::new(1, driver.queue(), Vec::new())
        .process(&memory, &mut Sink::new(usize::MAX))
        .unwrap_err();
    assert!(matches!(fault, QueueFault::Malformed { queue: 1, .. }));
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Readable(b"x")]);
    let input = Input::new().unwrap();
    input.enqueue(b"y");
    let fault = Receive::new(0, driver.queue())
        .process(&memory, &input)
        .unwrap_err();
    assert!(matches!(fault, QueueFault::Malformed { queue: 0, .. }));
}

#[test]
fn buffer_outside_memory_is_a_fault() {
    for address in [32 << 20, u64::MAX - 1] {
        let memory = guest_memory();
        let mut driver = QueueDriver::new(&memory, 0, 16);
        driver.add(&[Part::WritableAt(address, 8)]);
        let input = Input::new().unwrap();
        input.enqueue(b"12345678");
        let fault = Receive::new(0, driver.queue()).process(&memory, &input);
        assert!(fault.is_err(), "{address:#x}");
    }
}

#[test]
fn endless_write_is_cut_at_the_limit() {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 1, 16);
    let long = vec![b'x'; MAX_WRITE_BYTES];
    driver.add(&[Part::Readable(&long), Part::Readable(b"more")]);
    let mut sink = Sink::new(usize::MAX);
    let mut transmit = Transmit::new(1, driver.queue(), Vec::new());
    transmit.process(&memory, &mut sink).unwrap();
    assert_eq!(sink.bytes().len(), MAX_WRITE_BYTES);
}

#[test]
fn device_talks_both_ways_and_keeps_output_over_a_stop() {
    let memory = guest_memory();
    let irq = FakeInterrupt::new();
    let sink = Sink::new(2);
    let (mut device, input) = console(&sink);
    let features = device.spec().features;
    let mut receive = QueueDriver::new(&memory, 0, 16);
    let mut transmit = QueueDriver::new(&memory, 1, 16);
    let queues = [
        receive.active_queue(features),
        transmit.active_queue(features),
    ];
    device
        .activate(activation(&memory, &irq, features, queues))
        .unwrap();
    let head = receive.add(&[Part::Writable(16)]);
    receive.kick();
    input.enqueue(b"ping");
    assert_eq!(receive.wait_used(&irq).unwrap().written, 4);
    assert_eq!(&receive.bytes(head, 0)[..4], b"ping");
    transmit.add(&[Part::Readable(b"pong")]);
    transmit.kick();
    transmit.wait_used(&irq).unwrap();

    let queues = device.stop().unwrap().queues;
    assert_eq!(sink.bytes(), b"po");
    let saved = device.save().unwrap();
    drop(device);
    let (mut restored, _) = console_from(&sink, Some(saved));
    sink.make_room(usize::MAX);
    restored
        .activate(activation(&memory, &irq, features, queues))
        .unwrap();
    transmit.add(&[Part::Readable(b"!")]);
    transmit.kick();
    transmit.wait_used(&irq).unwrap();
    restored.stop().unwrap();
    assert_eq!(sink.bytes(), b"pong!");
}

#[test]
fn activation_with_one_queue_is_refused() {
    let memory = guest_memory();
    let driver = QueueDriver::new(&memory, 0, 16);
    let (mut device, _) = console(&Sink::new(0));
    let activated = device.activate(activation(
        &memory,
        &FakeInterrupt::new(),
        0,
        [driver.active_queue(0)],
    ));
    assert!(matches!(
        activated,
        Err(ActivateError::MissingQueues {
            enabled: 1,
            needed: 2
        })
    ));
}

proptest! {
    #[test]
    fn any_rings_end_in_a_result(garbage in prop::collection::vec(any::<u8>(), 0..2048)) {
        crate::testing::fuzz::queues("console", &garbage);
    }
}
