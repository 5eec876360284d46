//! The page shows what the registers are, at every moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::super::MmioTransport;
use super::super::registers::*;
use super::*;
use crate::testing::fuzz::access_registers;

/// What a register is, worked out from the transport's own fields: the page plays no part.
fn register(transport: &MmioTransport, offset: u64) -> u32 {
    let live = transport.shared.live();
    let selected = usize::try_from(transport.queue_sel).unwrap();
    let queue = transport.queues.get(selected);
    let standing = if transport.shared.stands(INTERRUPT_USED) {
        INTERRUPT_USED
    } else {
        0
    };
    match offset {
        MAGIC_VALUE => 0x7472_6976,
        VERSION => 2,
        DEVICE_ID => 1,
        VENDOR_ID => 0x746f_6c73,
        DEVICE_FEATURES => match transport.device_features_sel {
            half @ 0..2 => u32::try_from(OFFERED >> (32 * half) & u64::from(u32::MAX)).unwrap(),
            _ => 0,
        },
        QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size.into()),
        QUEUE_READY => queue.map_or(0, |queue| queue.registers.ready.into()),
        INTERRUPT_STATUS => live.interrupt | standing,
        STATUS => live.status,
        SHM_LEN_LOW | SHM_LEN_HIGH | SHM_BASE_LOW | SHM_BASE_HIGH if transport.shm_sel != 1 => {
            u32::MAX
        }
        SHM_LEN_LOW => 0x20_0000,
        SHM_LEN_HIGH => 2,
        SHM_BASE_LOW => 0x4000_0000,
        SHM_BASE_HIGH => 5,
        CONFIG_GENERATION => live.config_generation,
        _ => 0,
    }
}

/// Compares the whole page with what the transport and the device say.
fn assert_shown(driver: &MmioDriver, after: &str) {
    for offset in (0..CONFIG).step_by(4) {
        let shown = driver.page().register(offset);
        let is = register(&driver.transport, offset);
        assert_eq!(shown, is, "{offset:#x} after {after}");
    }
    let mut shown = [0; 0xf00];
    let mut is = [0xee; 0xf00];
    driver.page().read(CONFIG, &mut shown);
    driver.transport.device().read_config(0, &mut is);
    assert_eq!(shown, is, "configuration after {after}");
}

/// One thing that happens to a device.
#[derive(Debug, Clone)]
enum Step {
    /// The driver accesses registers, sensibly or not.
    Access(Vec<u8>),
    /// The driver starts the device afresh.
    Start,
    /// The driver writes this to the status register.
    Status(u32),
    /// The driver acknowledges these reasons.
    Acknowledge(u32),
    /// The device has used descriptors.
    Used,
    /// The device's configuration changes.
    Reconfigure([u8; 8]),
    /// The device finds a fault.
    Fault,
    /// Somebody else gets the device's line.
    GiveAway,
    /// The next starts of the device fail, or no longer.
    Refuse(bool),
    /// The machine pauses, and goes on.
    Pause,
    /// The machine is saved, and goes on as another one.
    Migrate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..64).prop_map(Step::Access),
        2 => Just(Step::Start),
        1 => (0..0x100u32).prop_map(Step::Status),
        1 => (0..4u32).prop_map(Step::Acknowledge),
        2 => Just(Step::Used),
        2 => any::<[u8; 8]>().prop_map(Step::Reconfigure),
        1 => Just(Step::Fault),
        1 => Just(Step::GiveAway),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => Just(Step::Pause),
        1 => Just(Step::Migrate),
    ];
    prop::collection::vec(step, 1..24)
}

fn take(driver: &mut MmioDriver, notes: &mut Arc<Mutex<Notes>>, reads: Reads, step: &Step) {
    let interrupt = driver.transport.interrupt();
    match step {
        Step::Access(garbage) => access_registers(driver, garbage),
        // A device that refuses to start has no queues to be asserted of.
        Step::Start if notes.lock().unwrap().refuse => drop(driver.negotiate(OFFERED)),
        Step::Start => drop(driver.start()),
        Step::Status(value) => driver.write(STATUS, *value),
        Step::Acknowledge(causes) => driver.write(INTERRUPT_ACK, *causes),
        Step::Used => interrupt.signal_queue(0),
        Step::Reconfigure(space) => {
            notes.lock().unwrap().space = Some(*space);
            interrupt.signal_config(space);
        }
        Step::Fault => interrupt.needs_reset(),
        Step::GiveAway => drop(interrupt.external().unwrap()),
        Step::Refuse(refuse) => notes.lock().unwrap().refuse = *refuse,
        // A device that does not start again has asked for a reset.
        Step::Pause => {
            driver.transport.stop().unwrap();
            let _ = driver.transport.resume();
        }
        Step::Migrate => {
            driver.transport.stop().unwrap();
            let state = driver.transport.save().unwrap();
            let (mut other, other_notes) = probe_with(reads);
            let space = notes.lock().unwrap().space.unwrap_or(SPACE);
            other_notes.lock().unwrap().space = Some(space);
            other.transport.show_config();
            other.transport.restore(&state).unwrap();
            assert_shown(&other, "restore");
            other.transport.resume().unwrap();
            (*driver, *notes) = (other, other_notes);
        }
    }
}

proptest! {
    #[test]
    fn page_shows_what_the_registers_are_whatever_happens(
        steps in steps(),
        reads in prop_oneof![Just(Reads::Exit), Just(Reads::Page)],
    ) {
        let (mut driver, mut notes) = probe_with(reads);
        assert_shown(&driver, "nothing");
        for step in &steps {
            take(&mut driver, &mut notes, reads, step);
            assert_shown(&driver, &format!("{step:?} of {steps:?}"));
        }
    }
}

#[test]
fn driver_that_checks_the_generation_never_takes_two_configurations_for_one() {
    let (driver, _) = probe_with(Reads::Page);
    let interrupt = driver.transport.interrupt();
    interrupt.signal_config(&[0; 8]);
    let page = driver.page().clone();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000u32 {
                let [value, ..] = round.to_le_bytes();
                interrupt.signal_config(&[value; 8]);
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut whole = 0;
        while !done.load(Ordering::SeqCst) || whole == 0 {
            let before = page.register(CONFIG_GENERATION);
            let (low, high) = (page.register(CONFIG), page.register(CONFIG + 4));
            if before == page.register(CONFIG_GENERATION) {
                assert_eq!(low, high, "in generation {before}");
                whole += 1;
            }
        }
    });
}

#[test]
fn configuration_generation_and_reason_change_in_one_step() {
    let (driver, _) = probe_with(Reads::Page);
    let registers = [CONFIG_GENERATION, INTERRUPT_STATUS, CONFIG, CONFIG + 4];
    let now = || registers.map(|register| driver.page().register(register));
    let before = now();
    driver.transport.interrupt().signal_config(&[9; 8]);
    let replaced = driver.page().replaced().expect("the page is replaced");
    let index = |register: u64| usize::try_from(register / 4).unwrap();
    assert_eq!(registers.map(|register| replaced[index(register)]), before);
    let nines = u32::from_ne_bytes([9; 4]);
    assert_eq!(now(), [before[0] + 1, INTERRUPT_CONFIG, nines, nines]);
}

#[test]
fn interrupt_finds_its_reason_in_the_page() {
    let (mut driver, notes) = probe_with(Reads::Page);
    driver.start();
    let interrupt = interrupt_of(&notes);
    assert_eq!(
        driver.page().register(INTERRUPT_STATUS),
        INTERRUPT_USED,
        "it stands while the device runs"
    );
    interrupt.needs_reset();
    assert_eq!(
        driver.page().register(INTERRUPT_STATUS),
        INTERRUPT_USED | INTERRUPT_CONFIG
    );
    assert_eq!(driver.page().register(STATUS), 0x4f);
    driver.write(INTERRUPT_ACK, INTERRUPT_USED | INTERRUPT_CONFIG);
    assert_eq!(driver.page().register(INTERRUPT_STATUS), INTERRUPT_USED);
    driver.write(STATUS, 0);
    assert_eq!(driver.page().register(INTERRUPT_STATUS), 0);
    assert_eq!(driver.page().register(STATUS), 0);
}
