//! Records of the index: what a source yields and which files hold it.

use serde::{Deserialize, Serialize};

use super::super::bzimage::Setup;
use super::super::identity::{Identity, digest};
use super::super::kernel::Kernel;
use super::{INITRDS, KERNELS};

/// Format of the record below; another one is as good as no record.
const FORMAT: u32 = 1;

/// What a source yields besides kernel and initrd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Facts {
    /// Kernel parameters of the source.
    pub(in super::super) params: String,
    /// Init the source names.
    pub(in super::super) init: Option<String>,
    /// How it was found.
    pub(in super::super) found_by: String,
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Artefact {
    /// Path below the cache directory.
    pub(super) file: String,
    /// SHA-256 of its content.
    pub(super) digest: String,
    /// Its identity when it was last known to have that digest.
    pub(super) identity: Identity,
}

impl Artefact {
    /// Whether the path is one that this cache gives: nothing else is ever opened.
    fn is_sane(&self) -> bool {
        let Some((directory, name)) = self.file.split_once('/') else {
            return false;
        };
        let Some((stem, extension)) = name.split_once('.') else {
            return false;
        };
        let known = match directory {
            KERNELS => matches!(extension, "elf" | "bzimage"),
            INITRDS => extension == "img",
            _ => false,
        };
        known && stem.len() == 64 && stem.bytes().all(|c| c.is_ascii_hexdigit())
    }
}

/// The kernel of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KernelRecord {
    /// Its path in the source.
    pub(super) name: String,
    /// The file that holds it.
    pub(super) file: Artefact,
    /// The setup header of the bzImage it came from.
    setup: Option<Vec<u8>>,
    /// The version in that bzImage.
    version: Option<String>,
}

impl KernelRecord {
    /// Describes `kernel`, whose bytes are in `file`.
    pub(super) fn new(kernel: &Kernel, file: Artefact) -> Self {
        let setup = kernel.setup();
        Self {
            name: kernel.name.clone(),
            file,
            setup: setup.map(|setup| setup.raw().to_vec()),
            version: setup.and_then(|setup| setup.version()).map(str::to_owned),
        }
    }

    /// The setup header, if there was one. `Err` when it is damaged.
    pub(super) fn setup(&self) -> Result<Option<Setup>, &'static str> {
        match &self.setup {
            None => Ok(None),
            Some(raw) => Setup::from_raw(raw, self.version.clone())
                .map(Some)
                .ok_or("its setup header is damaged"),
        }
    }
}

/// The initrd of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InitrdRecord {
    /// Its path in the source.
    pub(super) name: String,
    /// The file that holds it.
    pub(super) file: Artefact,
}

/// What a source yields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    /// The kernel.
    pub(super) kernel: KernelRecord,
    /// The initrd.
    pub(super) initrd: Option<InitrdRecord>,
    /// The rest.
    pub(super) facts: Facts,
}

impl Record {
    /// A record in the current format.
    pub(super) fn new(kernel: KernelRecord, initrd: Option<InitrdRecord>, facts: Facts) -> Self {
        Self {
            format: FORMAT,
            kernel,
            initrd,
            facts,
        }
    }

    /// The files the record refers to.
    pub(super) fn artefacts(&mut self) -> impl Iterator<Item = &mut Artefact> {
        let initrd = self.initrd.as_mut().map(|initrd| &mut initrd.file);
        std::iter::once(&mut self.kernel.file).chain(initrd)
    }

    /// The record as a file: digest, newline, JSON.
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let json = serde_json::to_vec(self)?;
        let mut file = digest(&json).into_bytes();
        file.push(b'\n');
        file.extend(json);
        Ok(file)
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub(super) fn decode(file: &[u8]) -> Option<Self> {
        let (head, rest) = file.split_at_checked(64)?;
        let json = rest.strip_prefix(b"\n")?;
        if digest(json).as_bytes() != head {
            return None;
        }
        let mut record: Self = serde_json::from_slice(json).ok()?;
        let sane = record.format == FORMAT && record.artefacts().all(|file| file.is_sane());
        sane.then_some(record)
    }
}
