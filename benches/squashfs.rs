//! Kernel and initrd out of a bootstrap image and into guest memory: the first time, when the image
//! is unpacked into the cache, and every time after.

use std::error::Error;

use benches::guest::{Guest, Surroundings};
use criterion::{BatchSize, Criterion, SamplingMode};
use tempfile::TempDir;
use vmm::boot::{BootConfig, BootSource, LoadContext, open};

const MEMORY_MIB: u64 = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let dir = TempDir::new()?;
    let guest = Guest::large(dir.path())?;
    let around = guest
        .around
        .as_ref()
        .ok_or("the large guest has a bootstrap image")?;
    let mut group = criterion.benchmark_group("squashfs");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("cold", |bench| {
        bench.iter_batched(
            TempDir::new,
            |cache| read(around, cache.map(|cache| cache.path().join("cache")).ok()),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("without_cache", |bench| bench.iter(|| read(around, None)));
    read(around, Some(around.cache.clone()));
    group.bench_function("cached", |bench| {
        bench.iter(|| read(around, Some(around.cache.clone())))
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}

fn read(around: &Surroundings, cache_dir: Option<std::path::PathBuf>) {
    let config = BootConfig {
        source: BootSource::Bootstrap {
            image: around.bootstrap.clone(),
            toplevel: None,
        },
        params: Vec::new(),
        defaults: Vec::new(),
        init: None,
        cache_dir,
    };
    let machine = LoadContext {
        ram_bytes: MEMORY_MIB << 20,
        rsdp: vmm::arch::acpi::RSDP,
    };
    let memory = vmm::memory::create(MEMORY_MIB, vmm::memory::Backing::Private).ok();
    let payload = open(&config).ok();
    let loaded = payload
        .zip(memory)
        .map(|(payload, memory)| payload.load(&memory, payload.params(), &machine));
    assert!(
        matches!(loaded, Some(Ok(_))),
        "the image was not loaded: {loaded:?}"
    );
}
