use super::super::registers::*;
use super::super::status::{DEVICE_NEEDS_RESET, DRIVER_OK};
use super::*;
use crate::transport::{QueuePosition, TransportState};

fn saved() -> TransportState {
    let (mut driver, notes) = probe();
    driver.start();
    interrupt_of(&notes).signal_config(&SPACE);
    driver.write(QUEUE_SEL, 2);
    driver.transport.stop().unwrap();
    driver.transport.save().unwrap()
}

#[test]
fn running_transport_is_not_saved() {
    let (mut driver, _) = probe();
    driver.start();
    assert!(matches!(driver.transport.save(), Err(StateError::Active)));
}

#[test]
fn restored_transport_saves_equal_and_resumes_with_the_same_queues() {
    let mut state = saved();
    let positions = state.running.as_mut().unwrap();
    (positions[1].next_avail, positions[1].next_used) = (65_535, 7);
    let (mut driver, notes) = probe();
    driver.transport.restore(&state).unwrap();
    assert_eq!(driver.transport.save().unwrap(), state);
    assert_eq!(take_events(&notes), [], "restore starts nothing");
    driver.transport.resume().unwrap();
    let queues = vec![0, 1, 2];
    assert_eq!(
        take_events(&notes),
        [Event::Activated {
            features: OFFERED,
            queues
        }]
    );
    assert_eq!(driver.status(), 0x0f);
    assert_eq!(
        driver.read(INTERRUPT_STATUS),
        INTERRUPT_CONFIG | INTERRUPT_USED
    );
    driver.transport.stop().unwrap();
    assert_eq!(driver.transport.save().unwrap().running, state.running);
}

#[test]
fn transport_saved_before_or_after_any_step_of_the_driver_restores() {
    let (mut driver, _) = probe();
    let mut states = vec![driver.transport.save().unwrap()];
    driver.negotiate(OFFERED);
    states.push(driver.transport.save().unwrap());
    driver.add_queue(1, 64);
    states.push(driver.transport.save().unwrap());
    driver.write(QUEUE_READY, 0);
    driver.write(QUEUE_NUM, 3);
    driver.write(QUEUE_READY, 1);
    assert_eq!(driver.driver_ok(), 0x0f | DEVICE_NEEDS_RESET);
    states.push(driver.transport.save().unwrap());
    for state in states {
        let (mut other, notes) = probe();
        other.transport.restore(&state).unwrap();
        other.transport.resume().unwrap();
        assert_eq!(other.transport.save().unwrap(), state);
        assert_eq!(take_events(&notes), []);
        other.start();
        assert_eq!(other.status(), 0x0f, "a reset starts afresh");
    }
}

/// A name and a change that makes a good state an impossible one.
type Damage = (&'static str, fn(&mut TransportState));

#[test]
fn each_impossible_field_is_refused() {
    let damages: [Damage; 18] = [
        ("status", |state| state.status = 0x04),
        ("status", |state| state.status |= 0x10),
        ("driver_features", |state| state.driver_features |= 1),
        ("driver_features", |state| {
            state.driver_features &= !VERSION_1
        }),
        ("interrupt", |state| state.interrupt = 4),
        ("queues", |state| state.queues.truncate(2)),
        ("queues", |state| state.queues[0].size = 0),
        ("queues", |state| state.queues[0].size = 512),
        ("queues", |state| state.queues[0].descriptors = 8),
        ("queues", |state| {
            state.queues[1].descriptors = u64::MAX - 15
        }),
        ("queues", |state| state.queues[1].available = 1 << 40),
        ("queues", |state| state.queues[2].used |= 1),
        ("running", |state| state.queues[0].ready = false),
        ("running", |state| {
            state.running.as_mut().unwrap().truncate(2)
        }),
        ("running", |state| state.running.as_mut().unwrap().reverse()),
        ("running", |state| {
            let position = QueuePosition {
                index: 3,
                next_avail: 0,
                next_used: 0,
            };
            state.running.as_mut().unwrap().push(position);
        }),
        ("running", |state| state.running = None),
        ("running", |state| state.status &= !DRIVER_OK),
    ];
    for (name, damage) in damages {
        let mut state = saved();
        damage(&mut state);
        let (mut driver, _) = probe();
        let before = driver.transport.save().unwrap();
        match driver.transport.restore(&state) {
            Err(StateError::Invalid { field, .. }) => assert_eq!(field, name, "{state:?}"),
            other => panic!("{name}: {other:?} for {state:?}"),
        }
        assert_eq!(
            driver.transport.save().unwrap(),
            before,
            "nothing has changed"
        );
    }
}

#[test]
fn queue_ready_before_the_features_are_agreed_on_is_refused() {
    let (mut driver, _) = probe();
    let mut state = driver.transport.save().unwrap();
    state.queues[0].ready = true;
    assert!(driver.transport.restore(&state).is_err());
}

#[test]
fn running_transport_is_not_overwritten() {
    let (mut driver, _) = probe();
    driver.start();
    assert!(matches!(
        driver.transport.restore(&saved()),
        Err(StateError::Active)
    ));
}
