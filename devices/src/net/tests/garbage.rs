use proptest::prelude::*;

use super::super::Burst;
use super::*;
use crate::testing::{Descriptor, guest_memory};

/// Descriptors that are wrong in every way, and now and then right.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![0_u64..0x40_0000, (30_u64 << 20)..(34 << 20), any::<u64>()];
    let length = prop_oneof![0_u32..4096, Just(16 * 8), any::<u32>()];
    let next = prop_oneof![0_u16..20, any::<u16>()];
    (address, length, 0_u16..8, next).prop_map(|(address, length, flags, next)| Descriptor {
        address,
        length,
        flags,
        next,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No panic, no endless loop, and never more in the used ring than the driver made available.
    #[test]
    fn garbage_in_the_rings_is_survived(
        descriptors in prop::collection::vec(descriptor(), 16),
        heads in prop::collection::vec(prop_oneof![0_u16..16, any::<u16>()], 0..16),
        avail_idx in prop_oneof![0_u16..20, any::<u16>()],
    ) {
        let (tap, host) = wire();
        let memory = guest_memory();
        for queue in [0, 1] {
            let mut driver = QueueDriver::new(&memory, queue, 16);
            for (index, descriptor) in (0..).zip(&descriptors) {
                driver.write_descriptor(index, *descriptor);
            }
            for head in &heads {
                driver.publish(*head);
            }
            driver.set_avail_idx(avail_idx);
            for bytes in [60, 2000] {
                host.send(&frame(0, bytes)).unwrap();
            }
            let mut rx = rx(&memory, &driver, Buffers::Merged);
            let mut tx = tx(&memory, &driver);
            let mut turn = || if queue == 0 { rx.process(&tap) } else { tx.process(&tap) };

            // Each frame and each chain moves once, so that a few bursts are all it can take.
            let bursts = (0..8).map(|_| turn()).take_while(|burst| matches!(burst, Ok(Burst::More))).count();

            prop_assert!(bursts < 8, "queue {queue} is served for ever");
            prop_assert!(driver.device_used_idx() <= avail_idx);
            receive_all(&host);
        }
    }
}
