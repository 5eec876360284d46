//! The ACPI tables, which every boot builds anew.

use std::hint::black_box;

use criterion::Criterion;
use devices::registry::{MAX_POSITION, Position};
use vmm::arch::acpi::{Inventory, build};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("acpi");
    for (name, vcpus, devices) in [
        ("build_1_vcpu_3_devices", 1, 3),
        ("build_6_vcpus_16_devices", 6, MAX_POSITION + 1),
    ] {
        let inventory = Inventory {
            generation: Default::default(),
            vcpus,
            virtio: (0..devices).map(Position).collect(),
        };
        group.bench_function(name, |bench| bench.iter(|| build(black_box(&inventory))));
    }
    group.finish();
    criterion.final_summary();
}
