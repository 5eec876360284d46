//! The virtqueue itself: what taking chains and giving them back costs, without a device.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use devices::testing::{Part, QueueDriver, guest_memory};
use virtio_queue::{Queue, QueueOwnedT, QueueT};

const SIZE: u16 = 256;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    pop(&mut criterion, 1);
    pop(&mut criterion, 16);
    add_used(&mut criterion);
    criterion.final_summary();
}

/// Takes 256 chains of one buffer, or 16 chains of 16, and walks all their descriptors.
fn pop(criterion: &mut Criterion, buffers: u16) {
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, SIZE);
    let parts = vec![Part::Writable(64); usize::from(buffers)];
    let chains = SIZE / buffers;
    for _ in 0..chains {
        driver.add(&parts);
    }
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(u64::from(chains)));
    group.bench_function(format!("pop_{chains}_chains_of_{buffers}"), |bench| {
        bench.iter_batched_ref(
            || driver.queue(),
            |queue: &mut Queue| {
                let mut bytes = 0;
                while let Some(chain) = queue
                    .iter(&memory)
                    .ok()
                    .and_then(|mut chains| chains.next())
                {
                    bytes += chain
                        .map(|descriptor| u64::from(descriptor.len()))
                        .sum::<u64>();
                }
                black_box(bytes)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Gives 256 chains back, each visible at once, and asks once whether the driver wants to know.
fn add_used(criterion: &mut Criterion) {
    let memory = guest_memory();
    let driver = QueueDriver::new(&memory, 0, SIZE);
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(u64::from(SIZE)));
    group.bench_function("push_256_used", |bench| {
        bench.iter_batched_ref(
            || driver.queue(),
            |queue: &mut Queue| {
                for head in 0..SIZE {
                    let added = queue.add_used(&memory, head, 64);
                    debug_assert!(added.is_ok(), "the ring lies in guest memory");
                }
                black_box(queue.needs_notification(&memory).is_ok())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}
