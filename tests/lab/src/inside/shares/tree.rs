//! What is shared: a tree of small files, a large file, and what the guest runs.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Files per directory.
const PER_DIRECTORY: usize = 50;

/// What the guest runs once the share is mounted. Mounted anew, it knows nothing of the share.
const SCRIPT: &str = "set -e
probe=/tmp/probe
cp /mnt/probe $probe
again() { cd /; umount /mnt; echo 3 >/proc/sys/vm/drop_caches; mount -t virtiofs share /mnt; }
again
$probe time find_cold find /mnt/tree
$probe time find_warm find /mnt/tree
again
$probe time tar_cold tar c /mnt/tree
$probe time tar_warm tar c /mnt/tree
again
$probe time sequential_read dd if=/mnt/large bs=1M
again
$probe time random_reads $probe random /mnt/large 8192 1
again
$probe time random_reads_by_four $probe random /mnt/large 8192 4
";

/// Makes `files` files of up to ten kilobytes in `dir/tree`, and a file of `large` MiB.
pub(super) fn plant(dir: &Path, files: usize, large: usize) -> Result<()> {
    for number in 0..files {
        // As in a store: a few directories at the top, the files two levels deeper.
        let parent = dir.join(format!(
            "tree/package{}/part{}",
            number / PER_DIRECTORY / 8,
            number / PER_DIRECTORY % 8
        ));
        if number % PER_DIRECTORY == 0 {
            fs::create_dir_all(&parent)?;
        }
        let content = format!("{number}\n").repeat(number * 7 % 1500);
        fs::write(parent.join(format!("file{number}")), content).context("Cannot make the tree")?;
    }
    register(&dir.join("tree"))?;
    let mut file = File::create(dir.join("large"))?;
    let block: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    for _ in 0..large {
        file.write_all(&block)
            .context("Cannot make the large file")?;
    }
    Ok(file.set_modified(registered())?)
}

/// Reads everything in `dir` twice. The host's kernel moves each page of a file to another list when that
/// is read again: the first guest would pay for it.
pub(super) fn read(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            read(&entry.path())?;
            continue;
        }
        for _ in 0..2 {
            let mut file = File::open(entry.path())?;
            io::copy(&mut file, &mut io::sink()).context("Cannot read what is shared")?;
        }
    }
    Ok(())
}

/// The time stamp of everything in a store.
fn registered() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1)
}

/// Gives everything in `dir`, and `dir`, the time stamp of a store: a backend may tell paths that are
/// complete from others by it.
fn register(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            register(&entry.path())?;
        } else {
            File::open(entry.path())?.set_modified(registered())?;
        }
    }
    Ok(File::open(dir)?.set_modified(registered())?)
}

/// Adds what the guest runs.
pub(super) fn add_programs(dir: &Path, probe: &Path) -> Result<()> {
    let copy = dir.join("probe");
    fs::copy(probe, &copy).with_context(|| format!("Cannot copy {}", probe.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("measure.sh"), SCRIPT)?;
    Ok(())
}
