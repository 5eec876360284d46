//! Takes a source's kernel and initrd out of the cache.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::super::blob::Blob;
use super::super::identity::{Identity, Key, hex};
use super::super::initrd::Initrd;
use super::super::kernel::Kernel;
use super::record::{Artefact, Facts, KernelRecord, Record};
use super::{Cache, INDEX, open_own};

/// Largest record read, in bytes: parameters of 64 KiB, escaped, with room to spare.
const MAX_RECORD: u64 = 1 << 20;
/// A record is marked as used at most this often, so that most boots write nothing.
const TOUCH_EVERY: Duration = Duration::from_secs(3600);

/// What the cache knows about a source.
#[derive(Debug)]
pub(in super::super) enum Lookup {
    /// Everything.
    Hit(Box<Cached>),
    /// Nothing.
    Miss,
    /// Something that cannot be trusted, for this reason.
    Damaged(String),
}

/// A source's content as the cache has it.
#[derive(Debug)]
pub(in super::super) struct Cached {
    pub(in super::super) kernel: Kernel,
    pub(in super::super) initrd: Option<Initrd>,
    pub(in super::super) facts: Facts,
}

impl Cache {
    /// Looks up the source with this key.
    pub(in super::super) fn lookup(&self, key: &Key) -> Lookup {
        let path = self.dir.join(INDEX).join(key.as_str());
        let file = match open_own(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Lookup::Miss,
            Err(error) => return Lookup::Damaged(format!("{}: {error}", path.display())),
        };
        let mut bytes = Vec::new();
        let read = (&file).take(MAX_RECORD).read_to_end(&mut bytes);
        let Some(mut record) = read.ok().and_then(|_| Record::decode(&bytes)) else {
            return Lookup::Damaged(format!("{}: the record is damaged", path.display()));
        };
        match self.cached(&mut record) {
            Ok((cached, Trust::Recorded)) => {
                if self.is_writable() {
                    mark_used(&file);
                }
                Lookup::Hit(Box::new(cached))
            }
            Ok((cached, Trust::Verified)) => {
                // Losing this costs the next boot another check, nothing more.
                if let Ok(fill) = self.fill() {
                    let _ = fill.write_record(key, &record);
                }
                Lookup::Hit(Box::new(cached))
            }
            Err(reason) => Lookup::Damaged(reason),
        }
    }

    fn cached(&self, record: &mut Record) -> Result<(Cached, Trust), String> {
        let mut trust = Trust::Recorded;
        let mut blobs = Vec::new();
        for artefact in record.artefacts() {
            let path = self.dir.join(&artefact.file);
            let (file, how) = open_artefact(&path, artefact)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            if how == Trust::Verified {
                trust = how;
            }
            blobs.push(Blob::from_file(file).map_err(|error| error.to_string())?);
        }
        let mut blobs = blobs.into_iter();
        let kernel = kernel(&record.kernel, blobs.next())?;
        let initrd = record
            .initrd
            .as_ref()
            .zip(blobs.next())
            .map(|(initrd, blob)| Initrd::from_blob(&initrd.name, blob))
            .transpose()
            .map_err(|error| error.to_string())?;
        let facts = record.facts.clone();
        let cached = Cached {
            kernel,
            initrd,
            facts,
        };
        Ok((cached, trust))
    }
}

/// Why a file of the cache is believed to be what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Nothing touched it since it was recorded.
    Recorded,
    /// Its digest was checked just now; its identity in the record is new.
    Verified,
}

fn open_artefact(path: &std::path::Path, artefact: &mut Artefact) -> io::Result<(File, Trust)> {
    let file = open_own(path)?;
    let identity = Identity::of(&file)?;
    if identity == artefact.identity {
        return Ok((file, Trust::Recorded));
    }
    if digest_of(&file)? != artefact.digest {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the content is not what was written",
        ));
    }
    artefact.identity = identity;
    Ok((file, Trust::Verified))
}

/// SHA-256 of a file from its start.
pub(super) fn digest_of(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn kernel(record: &KernelRecord, blob: Option<Blob>) -> Result<Kernel, String> {
    let blob = blob.ok_or("the record names no kernel file")?;
    let kernel = if record.file.file.ends_with(".elf") {
        Kernel::from_elf(&record.name, blob, record.setup()?)
    } else {
        Kernel::recognise(&record.name, blob)
    };
    kernel.map_err(|error| error.to_string())
}

/// Moves the record to the front of those that are kept.
fn mark_used(record: &File) {
    let now = SystemTime::now();
    let modified = record.metadata().and_then(|meta| meta.modified());
    let old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > TOUCH_EVERY));
    if old {
        // A cache that cannot be written may still be read.
        let _ = record.set_modified(now);
    }
}
