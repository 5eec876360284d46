//! Moving a state between slots that run, and the way back.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;

use super::tree::{furnish, tree};
use super::{Fixture, name};
use crate::{ControlError, MigrateError, Name, SlotControl, StoreError};

/// Slots that run, and one that does not start or stop.
#[derive(Default)]
struct Slots {
    running: RefCell<BTreeSet<Name>>,
    no_start: Option<Name>,
    no_stop: Option<Name>,
}

impl Slots {
    fn running(slots: &[&str]) -> Self {
        Self {
            running: RefCell::new(slots.iter().map(|slot| name(slot)).collect()),
            ..Self::default()
        }
    }

    fn now(&self) -> Vec<String> {
        self.running.borrow().iter().map(Name::to_string).collect()
    }
}

impl SlotControl for Slots {
    fn is_running(&self, slot: &Name) -> Result<bool, ControlError> {
        Ok(self.running.borrow().contains(slot))
    }

    fn stop(&self, slot: &Name) -> Result<(), ControlError> {
        if self.no_stop.as_ref() == Some(slot) {
            return Err("it hangs".into());
        }
        self.running.borrow_mut().remove(slot);
        Ok(())
    }

    fn start(&self, slot: &Name) -> Result<bool, ControlError> {
        if self.no_start.as_ref() == Some(slot) {
            return Err("it does not boot".into());
        }
        self.running.borrow_mut().insert(slot.clone());
        Ok(true)
    }
}

fn furnished() -> Fixture {
    let fixture = Fixture::new();
    furnish(fixture.dir.path());
    fixture
}

#[test]
fn state_leaves_its_slot_and_the_new_one_starts_with_it() {
    let fixture = furnished();
    let slots = Slots::running(&["slot1", "slot3"]);
    let (web, slot3) = (name("web"), name("slot3"));
    let moved = fixture.store.migrate(&web, &slot3, &slots).unwrap();
    assert_eq!(moved.assigned.taken_from, Some(name("slot1")));
    assert_eq!(moved.assigned.previous, Some(name("spare")));
    assert_eq!(slots.now(), ["slot3"]);
    assert_eq!(fixture.store.state_of(&slot3).unwrap(), Some(web));
    assert_eq!(fixture.store.state_of(&name("slot1")).unwrap(), None);
}

#[test]
fn slot_that_does_not_come_up_leaves_all_as_it_was() {
    for (to, had) in [
        ("slot3", "a state"),
        ("slot2", "its own image"),
        ("slot4", "nothing"),
    ] {
        let fixture = furnished();
        let before = tree(fixture.dir.path());
        let mut slots = Slots::running(&["slot1"]);
        slots.no_start = Some(name(to));
        let error = fixture.store.migrate(&name("web"), &name(to), &slots);
        let error = error.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Failed to start {to} with state 'web', so it was moved back: slot1 has it; \
                 slot1 runs again"
            )
        );
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "it does not boot"
        );
        assert_eq!(tree(fixture.dir.path()), before, "to a slot with {had}");
        assert_eq!(slots.now(), ["slot1"]);
    }
}

#[test]
fn state_that_no_slot_had_is_nobody_s_again() {
    let fixture = furnished();
    let slots = Slots {
        no_start: Some(name("slot3")),
        ..Slots::running(&["slot3"])
    };
    let error = fixture.store.migrate(&name("db"), &name("slot3"), &slots);
    assert_eq!(
        error.unwrap_err().to_string(),
        "Failed to start slot3 with state 'db', so it was moved back: no slot has it, as before; \
         slot3 did not start again, `slotvmm logs slot3` says more"
    );
}

#[test]
fn slot_that_does_not_stop_keeps_its_state() {
    let fixture = furnished();
    let before = tree(fixture.dir.path());
    let mut slots = Slots::running(&["slot1", "slot3"]);
    slots.no_stop = Some(name("slot1"));
    let error = fixture.store.migrate(&name("web"), &name("slot3"), &slots);
    assert!(matches!(error, Err(MigrateError::Slot { .. })), "{error:?}");
    assert_eq!(tree(fixture.dir.path()), before);
    assert_eq!(slots.now(), ["slot1", "slot3"]);
}

#[test]
fn state_that_does_not_exist_stops_no_slot() {
    let fixture = furnished();
    let slots = Slots::running(&["slot3"]);
    let error = fixture.store.migrate(&name("none"), &name("slot3"), &slots);
    let store =
        |error: &MigrateError| matches!(error, MigrateError::Store(StoreError::NoState { .. }));
    assert!(error.as_ref().is_err_and(store), "{error:?}");
    assert_eq!(slots.now(), ["slot3"]);
    assert!(fs::symlink_metadata(fixture.path("slot3/data.img")).is_ok());
}
