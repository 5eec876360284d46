//! The cache saves work, and whatever happens to it, the boot is the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use backhand::compression::Compressor;
use tempfile::{TempDir, tempdir};

use super::super::cache::MAX_RECORDS;
use super::super::testing::Item::File;
use super::super::testing::*;
use super::super::*;

struct Setup {
    dir: TempDir,
    config: BootConfig,
}

impl Setup {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        let kernel = good_bzimage();
        let items = [
            ("/boot/vmlinuz", File(&kernel)),
            ("/boot/initrd", File(b"initrd")),
            ("/boot/cmdline", File(b"quiet")),
        ];
        let path = put(dir.path(), "image", &image(Compressor::Lz4, &items));
        let config = BootConfig {
            cache_dir: Some(dir.path().join("state/cache")),
            ..boots(&path)
        };
        Self { dir, config }
    }

    /// Opens and loads, checks the result, says what the cache did.
    fn boot(&self) -> CacheUse {
        let payload = open(&self.config).unwrap();
        check(&payload);
        payload.describe().cache
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("state/cache")
    }

    fn files(&self, directory: &str) -> Vec<PathBuf> {
        files(&self.cache().join(directory))
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn check(payload: &Payload) {
    let (memory, machine) = machine(64);
    let entry = payload.load(&memory, payload.params(), &machine).unwrap();
    assert_eq!(entry.rip, KERNEL_AT);
    assert_eq!(payload.params(), "quiet");
    assert!(peek(&memory, KERNEL_AT, 11) == KERNEL_TEXT);
    assert_eq!(peek(&memory, 64 * MIB - 4096, 6), b"initrd");
    assert_eq!(payload.describe().version.as_deref(), Some(VERSION));
}

#[test]
fn a_look_writes_nothing() {
    let setup = Setup::new();
    check(&inspect(&setup.config).unwrap());
    assert!(!setup.cache().exists());
    fs::create_dir_all(setup.cache()).unwrap();
    fs::set_permissions(setup.cache(), fs::Permissions::from_mode(0o700)).unwrap();
    check(&inspect(&setup.config).unwrap());
    assert!(files(&setup.cache()).is_empty());
}

#[test]
fn a_look_uses_what_a_boot_cached() {
    let setup = Setup::new();
    assert_eq!(setup.boot(), CacheUse::Filled);
    let payload = inspect(&setup.config).unwrap();
    assert_eq!(payload.describe().cache, CacheUse::Hit);
}

#[test]
fn second_boot_hits_and_the_cache_is_private() {
    let setup = Setup::new();
    assert_eq!(setup.boot(), CacheUse::Filled);
    assert_eq!(setup.boot(), CacheUse::Hit);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&setup.cache()), 0o700);
    for directory in ["index", "kernels", "initrds"] {
        let [file] = setup.files(directory).try_into().unwrap();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn changed_image_misses() {
    let setup = Setup::new();
    setup.boot();
    let BootSource::Bootstrap { image: path, .. } = &setup.config.source else {
        unreachable!()
    };
    let kernel = good_bzimage();
    let items = [("/boot/vmlinuz", File(&kernel))];
    fs::write(path, image(Compressor::Gzip, &items)).unwrap();
    let payload = open(&setup.config).unwrap();
    assert_eq!(payload.describe().cache, CacheUse::Filled);
    assert_eq!(payload.params(), "");
    assert_eq!(
        setup.files("kernels").len(),
        1,
        "the same kernel is kept once"
    );
}

#[test]
fn plain_bzimage_is_unpacked_once() {
    let setup = Setup::new();
    let kernel = put(setup.dir.path(), "bzImage", &good_bzimage());
    let config = BootConfig {
        cache_dir: setup.config.cache_dir.clone(),
        ..boots_files(&kernel, None)
    };
    let cache = || open(&config).unwrap().describe().cache;
    assert_eq!(cache(), CacheUse::Filled);
    assert_eq!(cache(), CacheUse::Hit);
}

/// Something done to the cache directory, and what to call it.
type Damage = (&'static str, fn(&Path));

/// Damages to the cache, each by itself.
const DAMAGES: [Damage; 12] = [
    ("kernel truncated", |c| shorten(&only(c, "kernels"))),
    ("kernel emptied", |c| write(&only(c, "kernels"), b"")),
    ("kernel changed", |c| flip(&only(c, "kernels"))),
    ("kernel removed", |c| {
        fs::remove_file(only(c, "kernels")).unwrap()
    }),
    ("kernel a directory", |c| {
        let path = only(c, "kernels");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        // A directory with something in it cannot be replaced by a rename.
        write(&path.join("x"), b"");
    }),
    ("kernel a symlink", |c| {
        let path = only(c, "kernels");
        fs::rename(&path, c.join("moved")).unwrap();
        symlink(c.join("moved"), &path).unwrap();
    }),
    ("initrd changed", |c| flip(&only(c, "initrds"))),
    ("initrd removed", |c| {
        fs::remove_file(only(c, "initrds")).unwrap()
    }),
    ("record truncated", |c| shorten(&only(c, "index"))),
    ("record changed", |c| flip(&only(c, "index"))),
    ("record emptied", |c| write(&only(c, "index"), b"")),
    ("record is junk", |c| {
        write(&only(c, "index"), &[0xff; 4096])
    }),
];

fn only(cache: &Path, directory: &str) -> PathBuf {
    let [path] = files(&cache.join(directory)).try_into().unwrap();
    path
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

fn shorten(path: &Path) {
    let bytes = fs::read(path).unwrap();
    write(path, &bytes[..bytes.len() / 2]);
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(path, &bytes);
}

#[test]
fn damaged_cache_costs_time_not_the_boot() {
    for (name, damage) in DAMAGES {
        let setup = Setup::new();
        setup.boot();
        damage(&setup.cache());
        assert_ne!(setup.boot(), CacheUse::Hit, "{name}");
        if name != "kernel a directory" {
            assert_eq!(setup.boot(), CacheUse::Hit, "{name} is repaired");
        }
    }
}

#[test]
fn touched_but_intact_files_are_verified_and_trusted_again() {
    let setup = Setup::new();
    setup.boot();
    let kernel = only(&setup.cache(), "kernels");
    let bytes = fs::read(&kernel).unwrap();
    let copy = setup.cache().join("copy");
    write(&copy, &bytes);
    fs::rename(&copy, &kernel).unwrap();
    let record = fs::read(only(&setup.cache(), "index")).unwrap();
    assert_eq!(setup.boot(), CacheUse::Hit);
    assert_ne!(fs::read(only(&setup.cache(), "index")).unwrap(), record);
    assert_eq!(setup.boot(), CacheUse::Hit);
}

#[test]
fn file_that_breaks_between_open_and_load_is_read_from_the_image() {
    let setup = Setup::new();
    setup.boot();
    let payload = open(&setup.config).unwrap();
    assert_eq!(payload.describe().cache, CacheUse::Hit);
    for directory in ["kernels", "initrds"] {
        write(&only(&setup.cache(), directory), b"");
    }
    check(&payload);
}

#[test]
fn record_that_points_elsewhere_is_not_followed() {
    let setup = Setup::new();
    setup.boot();
    let record = only(&setup.cache(), "index");
    let text = fs::read_to_string(&record).unwrap();
    let (_, json) = text.split_once('\n').unwrap();
    let json = json.replace("kernels/", "../kernels/");
    let file = format!(
        "{}\n{json}",
        super::super::identity::digest(json.as_bytes())
    );
    write(&record, file.as_bytes());
    assert_eq!(setup.boot(), CacheUse::Filled);
}

#[test]
fn cache_that_cannot_be_used_is_gone_without() {
    let setup = Setup::new();
    let cache = setup.cache();
    put(setup.dir.path(), "state/cache", b"a file");
    assert!(matches!(setup.boot(), CacheUse::Unused(_)));
    fs::remove_file(&cache).unwrap();

    put(&cache, "kernels", b"a file");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(setup.boot(), CacheUse::Unused(_)));
    fs::remove_dir_all(&cache).unwrap();

    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let CacheUse::Unused(reason) = setup.boot() else {
        panic!("used a directory everybody can write")
    };
    assert!(reason.contains("writable by other users"), "{reason}");
    fs::remove_dir(&cache).unwrap();

    let config = BootConfig {
        cache_dir: Some(PathBuf::from("/proc/none/cache")),
        ..setup.config.clone()
    };
    let payload = open(&config).unwrap();
    check(&payload);
    assert!(matches!(payload.describe().cache, CacheUse::Unused(_)));
}

#[test]
fn busy_cache_is_not_waited_for() {
    let setup = Setup::new();
    setup.boot();
    fs::remove_file(only(&setup.cache(), "index")).unwrap();
    let lock = fs::File::open(setup.cache().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let CacheUse::Unused(reason) = setup.boot() else {
        panic!("wrote a cache somebody else was writing")
    };
    assert!(reason.contains("another boot is filling it"), "{reason}");
    drop(lock);
    assert_eq!(setup.boot(), CacheUse::Filled);
}

#[test]
fn concurrent_boots_share_the_cache() {
    let setup = Setup::new();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    setup.boot();
                }
            });
        }
    });
    assert_eq!(setup.boot(), CacheUse::Hit);
    assert_eq!(setup.files("kernels").len(), 1);
}

#[test]
fn cache_keeps_a_bounded_number_of_sources_and_no_left_overs() {
    let setup = Setup::new();
    setup.boot();
    put(&setup.cache(), "kernels/tmp-left", b"of a killed process");
    for i in 0..MAX_RECORDS + 2 {
        let mut bytes = good_bzimage();
        bytes.extend([u8::try_from(i).unwrap(); 9]);
        let kernel = put(setup.dir.path(), &format!("bzImage{i}"), &bytes);
        let config = BootConfig {
            cache_dir: setup.config.cache_dir.clone(),
            ..boots_files(&kernel, None)
        };
        assert_eq!(open(&config).unwrap().describe().cache, CacheUse::Filled);
    }
    assert_eq!(setup.files("index").len(), MAX_RECORDS);
    assert_eq!(setup.files("kernels").len(), MAX_RECORDS);
    assert_eq!(setup.files("initrds").len(), 0, "its record is the oldest");
}

#[test]
fn exported_files_are_those_that_boot_with_and_without_a_cache() {
    let setup = Setup::new();
    let uncached = BootConfig {
        cache_dir: None,
        ..setup.config.clone()
    };
    for config in [&setup.config, &setup.config, &uncached] {
        let payload = open(config).unwrap();
        let to = tempdir().unwrap();
        let exported = payload.export(to.path()).unwrap();
        assert_eq!(fs::read(exported.initrd.unwrap()).unwrap(), b"initrd");
        let kernel = fs::read(exported.kernel).unwrap();
        assert_eq!(kernel[..4], *b"\x7fELF");
        // The files are still read from their beginning when they are loaded.
        check(&payload);
    }
}
