//! States: a snapshot and a copy of one that is stopped, and its way to another host, beside what an
//! administrator would type instead: `cp --sparse=always`, and that with `zstd`.
//!
//! The image has 256 MiB, a quarter of it data that compresses to about a half. `TMPDIR` says where
//! it lies: blocks are shared where the file system there can.

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput};
use store::identity::Identity;
use store::transfer::Export;
use store::{Layout, Name, SnapshotRef, Store};
use tempfile::TempDir;

/// Length of the image in MiB.
const IMAGE_MIB: u64 = 256;

/// Of so many MiB the first one is data.
const EVERY_MIB: u64 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let dir = TempDir::new()?;
    let store = Store::new(Layout {
        root: dir.path().to_owned(),
        assignments: dir.path().join("assignments.json"),
    });
    let state: Name = "web".parse()?;
    store.create(&state)?;
    let image = store.layout().image(&state);
    write_image(&image)?;
    in_place(&mut criterion, (&store, &state), &image)?;
    on_the_way(&mut criterion, (&store, &state), &image)?;
    criterion.final_summary();
    Ok(())
}

/// Half noise, half zeroes, in turns of 2 KiB.
fn write_image(path: &Path) -> io::Result<()> {
    let image = File::create(path)?;
    image.set_len(IMAGE_MIB << 20)?;
    let mut noise = 1_u64;
    for mib in (0..IMAGE_MIB).step_by(usize::try_from(EVERY_MIB).unwrap_or(1)) {
        let mut data = vec![0; 1 << 20];
        for page in data.chunks_mut(4096) {
            for word in page.iter_mut().take(2048) {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *word = noise.to_be_bytes()[0];
            }
        }
        image.write_all_at(&data, mib << 20)?;
    }
    image.sync_all()
}

/// Snapshots, copies and what `cp` does.
fn in_place(
    criterion: &mut Criterion,
    (store, state): (&Store, &Name),
    image: &Path,
) -> Result<(), Box<dyn Error>> {
    let (snapshot, copy): (Name, Name) = ("now".parse()?, "copy".parse()?);
    let taken = SnapshotRef {
        state: Some(state.clone()),
        snapshot: snapshot.clone(),
    };
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(IMAGE_MIB << 20));
    group.bench_function("snapshot", |bench| {
        bench.iter_batched(
            || drop(store.delete_snapshot(&taken)),
            |()| assert!(store.snapshot(state, &snapshot, &|_, _| ()).is_ok()),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("clone", |bench| {
        bench.iter_batched(
            || drop(store.delete(&copy)),
            |()| {
                let done = store
                    .clone_state((state, Identity::Keep), &copy, &|_, _| ())
                    .is_ok();
                assert!(done);
            },
            BatchSize::PerIteration,
        );
    });
    let by_cp = image.with_file_name("by-cp");
    group.bench_function("cp_sparse", |bench| {
        bench.iter_batched(
            || drop(fs::remove_file(&by_cp)),
            |()| {
                shell(
                    "cp --sparse=always \"$0\" \"$1\" && sync \"$1\"",
                    &[image, &by_cp],
                )
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    Ok(fs::remove_file(&by_cp)?)
}

/// Export and import, and what `zstd` does with the whole image.
fn on_the_way(
    criterion: &mut Criterion,
    (store, state): (&Store, &Name),
    image: &Path,
) -> Result<(), Box<dyn Error>> {
    let what = Export::State(state.clone());
    let arrived: Name = "arrived".parse()?;
    let stream = store.export(&what, Vec::new(), &|_, _| ())?;
    let mut group = criterion.benchmark_group("transfer");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(IMAGE_MIB << 20));
    group.bench_function("export", |bench| {
        bench.iter(|| {
            let done = store
                .export(&what, black_box(io::sink()), &|_, _| ())
                .is_ok();
            assert!(done);
        });
    });
    group.bench_function("import", |bench| {
        bench.iter_batched(
            || drop(store.delete(&arrived)),
            |()| {
                let done = store
                    .import(&arrived, stream.as_slice(), &|_, _| ())
                    .is_ok();
                assert!(done);
            },
            BatchSize::PerIteration,
        );
    });
    if shell("zstd --version", &[]) {
        group.bench_function("zstd", |bench| {
            bench.iter(|| assert!(shell("zstd -q -3 -c \"$0\" | cat >/dev/null", &[image])));
        });
        let packed = image.with_file_name("packed");
        shell("zstd -q -f -3 \"$0\" -o \"$1\"", &[image, &packed]);
        let unpacked = image.with_file_name("unpacked");
        group.bench_function("unzstd_cp_sparse", |bench| {
            let line = "zstd -q -d -c \"$0\" | cp --sparse=always /dev/stdin \"$1\" && sync \"$1\"";
            bench.iter(|| assert!(shell(line, &[&packed, &unpacked])));
        });
    } else {
        println!("skipped: there is no zstd to compare with");
    }
    group.finish();
    Ok(())
}

/// Runs a line with these files, and says whether it succeeded.
fn shell(line: &str, files: &[&Path]) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", line]).args(files);
    command.stdout(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
