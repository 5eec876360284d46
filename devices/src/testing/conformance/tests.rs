use proptest::prelude::{any, prop, proptest};

use super::{CHECKS, subjects};
use crate::testing::{Reads, fuzz};

#[test]
fn every_device_passes_every_check() {
    for reads in [Reads::Exit, Reads::Page] {
        for subject in subjects() {
            let subject = subject.reading(reads);
            for (name, check) in CHECKS {
                println!("{}, {reads:?}: {name}", subject.name);
                check(&subject);
            }
        }
    }
}

#[test]
fn one_of_the_devices_has_a_window() {
    let with_window = |subject: &super::Subject| subject.build(None).spec().shared_memory.is_some();
    let names: Vec<_> = subjects()
        .into_iter()
        .filter(with_window)
        .map(|subject| subject.name)
        .collect();
    assert_eq!(names, ["fs with a window"]);
}

proptest! {
    #[test]
    fn any_register_access_to_any_device_is_survived(
        garbage in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        for reads in [Reads::Exit, Reads::Page] {
            for subject in subjects() {
                let mut driver = subject.reading(reads).driver();
                fuzz::access_registers(&mut driver, &garbage);
                driver.start();
            }
        }
    }

    #[test]
    fn any_saved_state_is_refused_or_works(garbage in prop::collection::vec(any::<u8>(), 0..96)) {
        fuzz::saved_state(&garbage);
    }

    #[test]
    fn any_damage_to_a_saved_transport_is_refused_or_works(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for (first, subject) in (0u8..).zip(subjects()) {
            let mut driver = subject.driver();
            driver.start();
            driver.transport.stop().unwrap();
            let mut bytes = postcard::to_stdvec(&driver.transport.save().unwrap()).unwrap();
            for (at, value) in &damage {
                *at.get_mut(&mut bytes) = *value;
            }
            bytes.insert(0, first);
            fuzz::saved_state(&bytes);
        }
    }

    #[test]
    fn any_interrupt_routing_is_survived(garbage in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::ioapic(&garbage);
    }

    #[test]
    fn any_rings_are_survived_by_any_device(garbage in prop::collection::vec(any::<u8>(), 0..2048)) {
        for subject in subjects() {
            fuzz::device(&subject, &garbage);
        }
    }

    #[test]
    fn any_configuration_access_to_any_device_is_survived(
        accesses in prop::collection::vec((any::<u64>(), 0usize..9), 0..64),
    ) {
        for subject in subjects() {
            let mut device = subject.build(None);
            for (offset, width) in &accesses {
                let mut data = vec![0xff; *width];
                device.write_config(*offset, &data);
                device.read_config(*offset, &mut data);
            }
        }
    }
}
