//! The checks.

use std::os::fd::AsRawFd;

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::QueueT;

use super::Subject;
use crate::device::{ActivateError, ActiveQueue, VirtioDevice};
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::testing::{
    Descriptor, FakeInterrupt, MmioDriver, QueueDriver, activation, guest_memory,
};
use crate::transport::registers as reg;
use crate::transport::status::{DEVICE_NEEDS_RESET, DRIVER_OK};

/// One thing that every device does; panics when this one does not.
pub type Check = fn(&Subject);

/// Every check with its name, which says the outcome.
pub const CHECKS: [(&str, Check); 13] = [
    ("spec keeps the rules", spec_keeps_the_rules),
    (
        "stop before activate returns nothing",
        stop_before_activate_returns_nothing,
    ),
    (
        "stop returns the queues for another activate",
        stop_returns_the_queues_for_another_activate,
    ),
    ("second activate is refused", second_activate_is_refused),
    (
        "activate without queues is refused and recovers",
        activate_without_queues_is_refused_and_recovers,
    ),
    ("restored device saves equal", restored_device_saves_equal),
    ("running device is not saved", running_device_is_not_saved),
    ("foreign state is refused", foreign_state_is_refused),
    (
        "driver reads what the device says",
        driver_reads_what_the_device_says,
    ),
    (
        "configuration takes any access",
        configuration_takes_any_access,
    ),
    (
        "any subset of the features works",
        any_subset_of_the_features_works,
    ),
    ("disabled queues are survived", disabled_queues_are_survived),
    (
        "broken rings set needs-reset and a reset recovers",
        broken_rings_set_needs_reset_and_a_reset_recovers,
    ),
];

fn spec_keeps_the_rules(subject: &Subject) {
    let device = subject.build(None);
    let spec = device.spec();
    for bit in [VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX] {
        assert_ne!(
            spec.features & 1 << bit,
            0,
            "{}: feature {bit} is offered",
            subject.name
        );
    }
    assert!(!spec.queue_sizes.is_empty(), "{}", subject.name);
    for size in &spec.queue_sizes {
        assert!(
            size.is_power_of_two() && *size <= 32_768,
            "{}: {size}",
            subject.name
        );
    }
}

fn stop_before_activate_returns_nothing(subject: &Subject) {
    let mut device = subject.build(None);
    assert!(device.stop().unwrap().queues.is_empty(), "{}", subject.name);
    start_and_stop(subject, device.as_mut());
}

fn stop_returns_the_queues_for_another_activate(subject: &Subject) {
    let mut device = subject.build(None);
    let memory = guest_memory();
    let irq = FakeInterrupt::new();
    let features = device.spec().features;
    let drivers = drivers(device.as_ref(), &memory);
    let mut queues: Vec<_> = drivers
        .iter()
        .map(|driver| driver.active_queue(features))
        .collect();
    let identity = |queues: &[ActiveQueue]| -> Vec<_> {
        let of = |queue: &ActiveQueue| {
            (
                queue.index,
                queue.kick.as_raw_fd(),
                queue.queue.desc_table(),
            )
        };
        queues.iter().map(of).collect()
    };
    let before = identity(&queues);
    for _ in 0..3 {
        device
            .activate(activation(&memory, &irq, features, queues))
            .unwrap();
        queues = device.stop().unwrap().queues;
        assert_eq!(identity(&queues), before, "{}", subject.name);
    }
    assert!(
        device.stop().unwrap().queues.is_empty(),
        "{}: stopped already",
        subject.name
    );
    assert!(!irq.is_reset_needed(), "{}", subject.name);
}

fn second_activate_is_refused(subject: &Subject) {
    let mut device = subject.build(None);
    let memory = guest_memory();
    let irq = FakeInterrupt::new();
    let features = device.spec().features;
    let drivers = drivers(device.as_ref(), &memory);
    let queues = || drivers.iter().map(|driver| driver.active_queue(features));
    device
        .activate(activation(&memory, &irq, features, queues()))
        .unwrap();
    let again = device.activate(activation(&memory, &irq, features, queues()));
    assert!(
        matches!(again, Err(ActivateError::AlreadyActive)),
        "{}: {again:?}",
        subject.name
    );
    assert_eq!(
        device.stop().unwrap().queues.len(),
        drivers.len(),
        "{}",
        subject.name
    );
}

fn activate_without_queues_is_refused_and_recovers(subject: &Subject) {
    let mut device = subject.build(None);
    let refused = device.activate(activation(&guest_memory(), &FakeInterrupt::new(), 0, []));
    assert!(
        matches!(
            refused,
            Err(ActivateError::MissingQueues { enabled: 0, .. })
        ),
        "{}: {refused:?}",
        subject.name
    );
    assert!(device.stop().unwrap().queues.is_empty(), "{}", subject.name);
    start_and_stop(subject, device.as_mut());
}

fn restored_device_saves_equal(subject: &Subject) {
    let mut device = subject.build(None);
    let fresh = device.save().unwrap();
    start_and_stop(subject, device.as_mut());
    for saved in [fresh, device.save().unwrap()] {
        let mut restored = subject.build(Some(saved.clone()));
        assert_eq!(restored.save().unwrap(), saved, "{}", subject.name);
        assert_eq!(
            restored.spec().features,
            device.spec().features,
            "{}",
            subject.name
        );
        start_and_stop(subject, restored.as_mut());
    }
}

fn running_device_is_not_saved(subject: &Subject) {
    let mut device = subject.build(None);
    let memory = guest_memory();
    let features = device.spec().features;
    let drivers = drivers(device.as_ref(), &memory);
    let queues = drivers.iter().map(|driver| driver.active_queue(features));
    device
        .activate(activation(&memory, &FakeInterrupt::new(), features, queues))
        .unwrap();
    assert!(
        matches!(device.save(), Err(StateError::Active)),
        "{}",
        subject.name
    );
    device.stop().unwrap();
}

fn foreign_state_is_refused(subject: &Subject) {
    let good = subject.build(None).save().unwrap();
    let foreign = [
        StateBlob {
            kind: "foreign".to_owned(),
            ..good.clone()
        },
        StateBlob {
            version: good.version + 1,
            ..good.clone()
        },
        StateBlob {
            version: 0,
            ..good.clone()
        },
        StateBlob {
            bytes: vec![0; crate::state::MAX_STATE_BYTES + 1],
            ..good.clone()
        },
    ];
    for saved in foreign {
        let built = subject.try_build(Some(saved)).map(|_| ());
        assert!(
            matches!(built, Err(BuildError::State { .. })),
            "{}: {built:?}",
            subject.name
        );
    }
    for cut in 0..good.bytes.len() {
        let bytes = good.bytes.iter().copied().take(cut).collect();
        let built = subject
            .try_build(Some(StateBlob {
                bytes,
                ..good.clone()
            }))
            .map(|_| ());
        assert!(
            matches!(built, Err(BuildError::State { .. })),
            "{}: cut at {cut}",
            subject.name
        );
    }
}

/// Before it starts, while it runs, after it stopped, and after a reset.
fn driver_reads_what_the_device_says(subject: &Subject) {
    let mut driver = subject.driver();
    assert_reads(subject, &mut driver);
    driver.start();
    assert_reads(subject, &mut driver);
    driver.transport.stop().unwrap();
    assert_reads(subject, &mut driver);
    driver.transport.resume().unwrap();
    assert_reads(subject, &mut driver);
    driver.write(reg::STATUS, 0);
    assert_reads(subject, &mut driver);
    assert_eq!(driver.read(reg::STATUS), 0, "{}", subject.name);
    assert_eq!(driver.read(reg::INTERRUPT_STATUS), 0, "{}", subject.name);
}

fn assert_reads(subject: &Subject, driver: &mut MmioDriver) {
    let (kind, features, sizes) = {
        let spec = driver.transport.device().spec();
        (spec.kind, spec.features, spec.queue_sizes.clone())
    };
    assert_eq!(driver.read(reg::MAGIC_VALUE), reg::MAGIC);
    assert_eq!(driver.read(reg::VERSION), reg::MMIO_VERSION);
    assert_eq!(driver.read(reg::DEVICE_ID), kind as u32);
    assert_eq!(driver.offered(), features, "{}", subject.name);
    for (index, size) in (0..).zip(sizes.iter().copied().chain([0])) {
        driver.write(reg::QUEUE_SEL, index);
        let max = driver.read(reg::QUEUE_NUM_MAX);
        assert_eq!(max, u32::from(size), "{}: queue {index}", subject.name);
    }
    for width in [1, 2, 4, 8] {
        for offset in (0..256).step_by(width) {
            let (mut seen, mut said) = ([0; 8], [0; 8]);
            driver.read_bytes(reg::CONFIG + offset, &mut seen[..width]);
            let device = driver.transport.device();
            device.read_config(offset, &mut said[..width]);
            assert_eq!(seen, said, "{}: {width} at {offset}", subject.name);
        }
    }
}

fn configuration_takes_any_access(subject: &Subject) {
    let mut device = subject.build(None);
    let mut whole = [0xff; 512];
    device.read_config(0, &mut whole);
    for width in [1, 2, 4, 8] {
        for offset in (0..520).chain([0xeff, u64::from(u32::MAX), u64::MAX - 8, u64::MAX]) {
            device.write_config(offset, &[0xff; 8][..width]);
            let mut data = [0xee; 8];
            device.read_config(offset, &mut data[..width]);
            assert_eq!(
                data[width..],
                [0xee; 8][width..],
                "{}: {width} at {offset}",
                subject.name
            );
            if offset >= 512 {
                assert_eq!(
                    data[..width],
                    [0; 8][..width],
                    "{}: {offset} is beyond",
                    subject.name
                );
            }
        }
    }
    let mut after = [0xff; 512];
    device.read_config(0, &mut after);
    assert_eq!(
        whole, after,
        "{}: no field here is the driver's to write",
        subject.name
    );
}

fn any_subset_of_the_features_works(subject: &Subject) {
    let mut driver = subject.driver();
    let version_1 = 1 << VIRTIO_F_VERSION_1;
    let offered = driver.offered();
    let each = (0..64)
        .map(|bit| offered & 1 << bit)
        .filter(|one| *one != 0);
    let subsets = each.flat_map(|one| [version_1 | one, offered & !one | version_1]);
    for features in subsets {
        assert!(
            driver.negotiate(features),
            "{}: {features:#x}",
            subject.name
        );
        add_queues(&mut driver, |_| true);
        let status = driver.driver_ok();
        assert_eq!(
            status & DEVICE_NEEDS_RESET,
            0,
            "{}: {features:#x}",
            subject.name
        );
    }
}

fn disabled_queues_are_survived(subject: &Subject) {
    let mut driver = subject.driver();
    let offered = driver.offered();
    let count = u16::try_from(driver.transport.device().spec().queue_sizes.len()).unwrap();
    for disabled in 0..count {
        assert!(driver.negotiate(offered), "{}", subject.name);
        add_queues(&mut driver, |index| index != disabled);
        assert_ne!(driver.driver_ok() & DRIVER_OK, 0, "{}", subject.name);
        driver.start();
    }
}

/// Breaks each queue of a running device in each way, and brings the device back.
fn broken_rings_set_needs_reset_and_a_reset_recovers(subject: &Subject) {
    let mut driver = subject.driver();
    let count = u16::try_from(driver.transport.device().spec().queue_sizes.len()).unwrap();
    for index in (0..count).filter(|index| subject.serves(*index)) {
        for (what, breakage) in BREAKAGES {
            let mut queues = driver.start();
            let queue = queues.get_mut(usize::from(index)).unwrap();
            breakage(queue);
            driver.notify(queue);
            let broken = |driver: &mut MmioDriver| driver.status() & DEVICE_NEEDS_RESET != 0;
            let seen = wait_status(&mut driver, broken);
            assert!(seen, "{}: queue {index}: {what} is noticed", subject.name);
            assert_eq!(
                driver.read(reg::INTERRUPT_STATUS) & reg::INTERRUPT_CONFIG,
                reg::INTERRUPT_CONFIG
            );
        }
        driver.start();
    }
}

type Breakage = (&'static str, fn(&mut QueueDriver));

const BREAKAGES: [Breakage; 4] = [
    ("an available index beyond the ring", |queue| {
        queue.set_avail_idx(queue.size() + 1)
    }),
    ("a head beyond the table", |queue| queue.publish(u16::MAX)),
    ("a chain that leads out of the table", |queue| {
        queue.write_descriptor(0, BUFFER_AND_ON);
        queue.publish(0);
    }),
    ("a chain outside memory", |queue| {
        let nowhere = Descriptor {
            address: 1 << 40,
            length: 64,
            flags: 2,
            next: 0,
        };
        queue.write_descriptor(0, nowhere);
        queue.publish(0);
    }),
];

const BUFFER_AND_ON: Descriptor = Descriptor {
    address: 0x40_0000,
    length: 64,
    flags: 1 | 2,
    next: u16::MAX,
};

fn wait_status(driver: &mut MmioDriver, wanted: impl Fn(&mut MmioDriver) -> bool) -> bool {
    let irq = driver.irq();
    crate::testing::wait_for(&irq, || wanted(driver).then_some(())).is_some()
}

fn add_queues(driver: &mut MmioDriver, enabled: impl Fn(u16) -> bool) {
    let count = u16::try_from(driver.transport.device().spec().queue_sizes.len()).unwrap();
    for index in (0..count).filter(|index| enabled(*index)) {
        driver.add_queue(index, 256);
    }
}

fn drivers(device: &dyn VirtioDevice, memory: &crate::device::Memory) -> Vec<QueueDriver> {
    let sizes = &device.spec().queue_sizes;
    (0..)
        .zip(sizes)
        .map(|(index, size)| QueueDriver::new(memory, index, *size))
        .collect()
}

/// Starts the device on fresh queues and stops it: it works, whatever came before.
pub(crate) fn start_and_stop(subject: &Subject, device: &mut dyn VirtioDevice) {
    let memory = guest_memory();
    let irq = FakeInterrupt::new();
    let features = device.spec().features;
    let drivers = drivers(device, &memory);
    let queues = drivers.iter().map(|driver| driver.active_queue(features));
    device
        .activate(activation(&memory, &irq, features, queues))
        .unwrap();
    assert_eq!(
        device.stop().unwrap().queues.len(),
        drivers.len(),
        "{}",
        subject.name
    );
    assert!(!irq.is_reset_needed(), "{}", subject.name);
}
