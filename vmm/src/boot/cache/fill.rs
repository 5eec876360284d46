//! Puts a source's kernel and initrd into the cache, and drops what was not used for long.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, OFlags, flock};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::super::identity::{Identity, Key, hex};
use super::super::kernel::Kernel;
use super::lookup::digest_of;
use super::record::{Artefact, Facts, InitrdRecord, KernelRecord, Record};
use super::{Cache, INDEX, INITRDS, KERNELS, MAX_RECORDS, open_own};

/// Start of the names of files that are being written.
const TEMPORARY: &str = "tmp-";

/// The right to write the cache, until dropped.
pub(in super::super) struct Fill<'a> {
    cache: &'a Cache,
    _lock: File,
}

/// A file that was put into the cache.
pub(in super::super) struct Stored {
    /// The file, open for reading.
    pub(in super::super) file: File,
    artefact: Artefact,
}

impl Cache {
    /// Starts to write. Does not wait: when another process is writing, this boot goes without.
    pub(in super::super) fn fill(&self) -> io::Result<Fill<'_>> {
        if !self.is_writable() {
            return Err(io::Error::other("only a boot fills it"));
        }
        for directory in [INDEX, KERNELS, INITRDS] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(self.dir.join(directory))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another boot is filling it"),
            other => other.into(),
        })?;
        Ok(Fill {
            cache: self,
            _lock: lock,
        })
    }
}

impl Fill<'_> {
    /// Stores `bytes` as the kernel that the source with digest `source` yields.
    pub(in super::super) fn kernel(
        &self,
        source: &str,
        extension: &str,
        bytes: &[u8],
    ) -> io::Result<Stored> {
        let mut file = self.temporary(KERNELS)?;
        file.write_all(bytes)?;
        self.keep(file, KERNELS, &format!("{source}.{extension}"))
    }

    /// Stores the initrd that `write` writes.
    pub(in super::super) fn initrd(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<u64>,
    ) -> io::Result<Stored> {
        let mut file = self.temporary(INITRDS)?;
        write(&mut file)?;
        let name = format!("{}.img", hex(&file.hash.clone().finalize()));
        self.keep(file, INITRDS, &name)
    }

    /// Records that the source with this key yields these files, then drops what is in excess.
    pub(in super::super) fn record(
        &self,
        key: &Key,
        (kernel, stored): (&Kernel, &Stored),
        initrd: Option<(&str, &Stored)>,
        facts: &Facts,
    ) -> io::Result<()> {
        let kernel = KernelRecord::new(kernel, stored.artefact.clone());
        let initrd = initrd.map(|(name, stored)| InitrdRecord {
            name: name.to_owned(),
            file: stored.artefact.clone(),
        });
        self.write_record(key, &Record::new(kernel, initrd, facts.clone()))?;
        // Everything that was asked for is stored; what is in excess can go another time.
        if let Err(error) = self.evict() {
            tracing::warn!(%error, "Kernel cache cannot be tidied up");
        }
        Ok(())
    }

    /// Writes a record, replacing the one before.
    pub(super) fn write_record(&self, key: &Key, record: &Record) -> io::Result<()> {
        let mut file = self.temporary(INDEX)?;
        file.write_all(&record.encode()?)?;
        self.persist(file, INDEX, key.as_str())?;
        Ok(())
    }

    fn temporary(&self, directory: &str) -> io::Result<Hashed> {
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(self.cache.dir.join(directory))?;
        Ok(Hashed {
            file,
            hash: Sha256::new(),
        })
    }

    /// Gives a written file its name, unless an intact one has it already.
    fn keep(&self, written: Hashed, directory: &str, name: &str) -> io::Result<Stored> {
        let digest = hex(&written.hash.clone().finalize());
        let path = self.cache.dir.join(directory).join(name);
        let same = |file: &File| digest_of(file).is_ok_and(|found| found == digest);
        let file = match open_own(&path) {
            Ok(file) if same(&file) => file,
            _ => self.persist(written, directory, name)?,
        };
        let artefact = Artefact {
            file: format!("{directory}/{name}"),
            digest,
            identity: Identity::of(&file)?,
        };
        Ok(Stored { file, artefact })
    }

    /// On disk first, then visible, then the name on disk too. The result is open for reading.
    fn persist(&self, written: Hashed, directory: &str, name: &str) -> io::Result<File> {
        written.file.as_file().sync_all()?;
        let directory = self.cache.dir.join(directory);
        let path = directory.join(name);
        written.file.persist(&path).map_err(|error| error.error)?;
        File::open(&directory)?.sync_all()?;
        open_own(&path)
    }

    /// Removes the least recently used records, then every file no record refers to.
    fn evict(&self) -> io::Result<()> {
        let mut records: Vec<(SystemTime, PathBuf)> = self
            .files(INDEX)?
            .into_iter()
            .map(|path| (modified(&path), path))
            .collect();
        records.sort();
        let excess = records.len().saturating_sub(MAX_RECORDS);
        for (_, path) in records.drain(..excess) {
            fs::remove_file(path)?;
        }
        let mut used = HashSet::new();
        for (_, path) in &records {
            match fs::read(path).ok().and_then(|bytes| Record::decode(&bytes)) {
                Some(mut record) => used.extend(record.artefacts().map(|a| a.file.clone())),
                None => fs::remove_file(path)?,
            }
        }
        for directory in [KERNELS, INITRDS] {
            for path in self.files(directory)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if !used.contains(&format!("{directory}/{name}")) {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    fn files(&self, directory: &str) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.cache.dir.join(directory))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }
}

impl Stored {
    /// The file as bytes to load.
    pub(in super::super) fn into_file(self) -> File {
        self.file
    }
}

fn modified(path: &Path) -> SystemTime {
    let meta = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    meta.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A file being written, with the digest of what was written so far.
struct Hashed {
    file: NamedTempFile,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buf)?;
        self.hash.update(buf.get(..count).unwrap_or(buf));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
