//! Makes a data image that is absent.
//!
//! The image grows under a temporary name, locked from the start, and gets its own name only when
//! it is complete and on disk. A process that dies leaves at most the temporary file; the next run
//! takes its lock, finds it free, and starts over in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::open::{parent, take_lock};
use super::{DiskError, copy};
use crate::resolve::{Create, Disk};

/// Image files hold a guest's data: only their owner reads them.
const IMAGE_MODE: u32 = 0o600;

/// How often a temporary file may change under us before that is an error. Each change means that
/// another process completed or dropped one, so more than one is already strange.
const ATTEMPTS: usize = 8;

/// Makes, locks and returns the image.
///
/// # Errors
/// When it cannot be made. Nothing of it is left then.
pub(super) fn create(disk: &Disk, create: &Create) -> Result<File, DiskError> {
    check(disk, create)?;
    let directory = MadeDirectory::ensure(disk, create)?;
    let temporary = Temporary::claim(disk)?;
    fill(disk, create, &temporary)?;
    let file = temporary.publish(disk)?;
    directory.keep();
    Ok(file)
}

/// Checks what can be checked without making anything.
///
/// # Errors
/// When a directory, the template or mkfs.ext4 is missing.
pub(super) fn check(disk: &Disk, create: &Create) -> Result<(), DiskError> {
    let directory = match &create.directory {
        Some(directory) if !directory.is_dir() => parent(directory),
        _ => parent(&disk.path),
    };
    if !directory.is_dir() {
        let directory = directory.to_owned();
        return Err(DiskError::NoDirectory {
            id: disk.id.clone(),
            directory,
        });
    }
    match &create.template {
        Some(template) => copy::open_template(disk, create, template).map(drop),
        None => require_mkfs(disk).map(drop),
    }
}

fn fill(disk: &Disk, create: &Create, temporary: &Temporary) -> Result<(), DiskError> {
    let file = &temporary.file;
    file.set_len(0)
        .map_err(|error| failed(disk, "truncate a temporary file", error))?;
    match &create.template {
        Some(template) => copy::copy_template(disk, create, template, file)?,
        None => make_filesystem(disk, create, temporary)?,
    }
    file.sync_all()
        .map_err(|error| failed(disk, "write to disk", error))
}

/// Bytes of `mib` MiB; what no file can have becomes an error of `set_len`.
pub(super) fn bytes(mib: u64) -> u64 {
    mib.saturating_mul(1 << 20)
}

fn make_filesystem(disk: &Disk, create: &Create, temporary: &Temporary) -> Result<(), DiskError> {
    let program = require_mkfs(disk)?;
    let size = bytes(create.size_mib.unwrap_or_default());
    temporary
        .file
        .set_len(size)
        .map_err(|error| failed(disk, "reserve its size", error))?;
    // Never read, but it shares our lock: should this process be killed, the image stays locked
    // for as long as mkfs.ext4 still writes to it.
    let lock = temporary
        .file
        .try_clone()
        .map_err(|error| failed(disk, "share the lock", error))?;
    // Tables are left to the guest's kernel: zeroes in a sparse file are zeroes already.
    let output = Command::new(program)
        .args(["-q", "-F", "-L", &create.label])
        .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
        .arg(&temporary.path)
        .stdin(Stdio::from(lock))
        .output()
        .map_err(|error| failed(disk, "start mkfs.ext4", error))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    let printed = printed
        .split_ascii_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let output = if printed.is_empty() {
        output.status.to_string()
    } else {
        printed
    };
    Err(DiskError::Mkfs {
        id: disk.id.clone(),
        path: disk.path.clone(),
        output,
    })
}

/// Where mkfs.ext4 is. A service's PATH often lacks the sbin directories.
pub(crate) fn mkfs_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|directory| directory.join("mkfs.ext4"))
        .find(|program| program.is_file())
}

fn require_mkfs(disk: &Disk) -> Result<PathBuf, DiskError> {
    mkfs_program().ok_or_else(|| DiskError::NoMkfs {
        id: disk.id.clone(),
        path: disk.path.clone(),
    })
}

/// A directory that was made for the image and goes again when the image does not come.
struct MadeDirectory {
    made: Option<PathBuf>,
}

impl MadeDirectory {
    fn ensure(disk: &Disk, create: &Create) -> Result<Self, DiskError> {
        let Some(directory) = &create.directory else {
            return Ok(Self { made: None });
        };
        match DirBuilder::new().mode(0o755).create(directory) {
            Ok(()) => Ok(Self {
                made: Some(directory.clone()),
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { made: None }),
            Err(error) => Err(failed(disk, "create the directory", error)),
        }
    }

    fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for MadeDirectory {
    fn drop(&mut self) {
        if let Some(directory) = &self.made {
            // Only fails when someone else put something there, and then it should stay.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The image before it has its name; removed unless published.
struct Temporary {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Temporary {
    /// Opens and locks the temporary file. One fixed name per image, so that what a killed process
    /// left is found again.
    fn claim(disk: &Disk) -> Result<Self, DiskError> {
        let name = disk.path.file_name().unwrap_or_default().to_string_lossy();
        let path = parent(&disk.path).join(format!(".{name}.new"));
        for _ in 0..ATTEMPTS {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(IMAGE_MODE)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(&path)
                .map_err(|error| failed(disk, "create a temporary file", error))?;
            take_lock(disk, &file)?;
            if is_at(&file, &path) {
                return Ok(Self {
                    path,
                    file,
                    published: false,
                });
            }
        }
        let error = io::Error::other("another process keeps replacing the temporary file");
        Err(failed(disk, "create a temporary file", error))
    }

    /// Gives the image its name. Fails when another process did so in the meantime.
    fn publish(mut self, disk: &Disk) -> Result<File, DiskError> {
        rename_new(&self.path, &disk.path).map_err(|error| failed(disk, "give its name", error))?;
        self.published = true;
        let directory = File::open(parent(&disk.path)).and_then(|directory| directory.sync_all());
        directory.map_err(|error| failed(disk, "write the directory", error))?;
        self.file
            .try_clone()
            .map_err(|error| failed(disk, "keep open", error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // Nothing more can be done, and the next run starts over in what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Renames without replacing anything.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(CWD, from, CWD, to, flags) {
        // Some network file systems know no such flag; a link never replaces either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

/// Whether `path` still names the open file: between opening and locking, another process may have
/// given the file its final name or removed it.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Names the step of making the image that failed.
pub(super) fn failed(disk: &Disk, action: &'static str, source: io::Error) -> DiskError {
    DiskError::Create {
        id: disk.id.clone(),
        path: disk.path.clone(),
        action,
        source,
    }
}
