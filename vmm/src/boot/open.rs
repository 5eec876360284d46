//! Finds what a configuration wants booted, through the cache when it helps.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blob::Blob;
use super::bootstrap::{self, Found, Member};
use super::cache::{Cache, Facts, Fill, Lookup};
use super::error::OpenError;
use super::identity::{Key, digest};
use super::initrd::Initrd;
use super::kernel::{Image, Kernel, KernelError, MAX_KERNEL};
use super::payload::{CacheUse, Payload};
use super::source::{self, HostTree, Tree};
use super::squashfs::{SquashTree, Superblock};
use super::{BootConfig, BootSource, params};

/// A cache, or why there is none.
type MaybeCache = Result<Cache, String>;

/// What a source yields, before the configuration's own parameters.
struct Parts {
    kernel: Kernel,
    initrd: Option<Initrd>,
    facts: Facts,
    cache: CacheUse,
}

/// Finds kernel, initrd and parameters, using and filling the cache. Nothing is loaded yet, and
/// on a hit nothing but a few headers is read.
///
/// The cache is never the reason for an error: without a usable one everything comes from the
/// source, and [`PayloadSummary::cache`](super::PayloadSummary::cache) says why.
pub fn open(config: &BootConfig) -> Result<Payload, OpenError> {
    let cache = match &config.cache_dir {
        Some(dir) => Cache::open(dir),
        None => Err("none configured".to_owned()),
    };
    if let (Err(reason), Some(_)) = (&cache, &config.cache_dir) {
        tracing::warn!(%reason, "Kernel cache is not used");
    }
    open_with(config, &cache)
}

/// As [`open`], and writes nothing: what the cache holds is used, what it lacks it goes on lacking.
pub fn inspect(config: &BootConfig) -> Result<Payload, OpenError> {
    let cache = match &config.cache_dir {
        Some(dir) => Cache::open_existing(dir),
        None => Err("none configured".to_owned()),
    };
    open_with(config, &cache)
}

/// As [`open`], without looking at the cache.
pub(super) fn open_uncached(config: &BootConfig) -> Result<Payload, OpenError> {
    open_with(config, &Err("it failed before".to_owned()))
}

fn open_with(config: &BootConfig, cache: &MaybeCache) -> Result<Payload, OpenError> {
    let parts = match &config.source {
        BootSource::Bootstrap { image, toplevel } => open_image(image, toplevel.as_deref(), cache)?,
        BootSource::Toplevel { path } => open_toplevel(path, cache)?,
        BootSource::Files { kernel, initrd } => open_files(kernel, initrd.as_deref(), cache)?,
    };
    Ok(finish(config, parts))
}

/// Adds `init=` and the configuration's parameters.
fn finish(config: &BootConfig, parts: Parts) -> Payload {
    let facts = parts.facts;
    let with_init = match config.init.as_ref().or(facts.init.as_ref()) {
        Some(init) => params::with_init(&facts.params, init),
        None => facts.params,
    };
    let params = params::insert(&with_init, &config.params);
    Payload {
        kernel: parts.kernel,
        initrd: parts.initrd,
        params: params::with_defaults(&params, &config.defaults),
        found_by: facts.found_by,
        cache: parts.cache,
        config: config.clone(),
    }
}

fn open_image(path: &Path, toplevel: Option<&str>, cache: &MaybeCache) -> Result<Parts, OpenError> {
    let failed = |source| OpenError::Image {
        path: path.to_owned(),
        source,
    };
    let file = open_for_reading(path).map_err(failed)?;
    let superblock = Superblock::read(path, &file)?;
    let search = format!("image {}", toplevel.unwrap_or_default());
    let key = Key::of(&file, &superblock.bytes, &search).map_err(failed)?;
    if let Some(parts) = look_up(cache, &key) {
        return Ok(parts);
    }
    let reader = file.try_clone().map_err(failed)?;
    let tree = Arc::new(SquashTree::open(path, reader, &superblock)?);
    let found = bootstrap::find(tree.as_ref(), toplevel)?;
    let size = (found.kernel.len, MAX_KERNEL);
    let bytes = source::read(tree.as_ref(), &found.kernel.path, size)?;
    let prepared = Prepared::new(&found.kernel.path, bytes)?;
    let (facts, initrd) = split(found);
    let stored = fill(cache).and_then(|fill| {
        let now = Key::of(&file, &superblock.bytes, &search);
        if now.is_ok_and(|now| now != key) {
            return Err("the image changed while it was read".to_owned());
        }
        store_all(&fill, &key, &prepared, (&tree, initrd.as_ref(), &facts))
            .map_err(|error| error.to_string())
    });
    let (kernel, initrd, cache) = match stored {
        Ok((kernel, initrd)) => (prepared.into_file_backed(kernel), initrd, CacheUse::Filled),
        Err(reason) => {
            note_unused(cache, &reason);
            let initrd = initrd
                .map(|member| Initrd::from_member(&tree, &member.path, member.len))
                .transpose()?;
            (prepared.kernel, initrd, CacheUse::Unused(reason))
        }
    };
    Ok(Parts {
        kernel,
        initrd,
        facts,
        cache,
    })
}

fn split(found: Found) -> (Facts, Option<Member>) {
    let facts = Facts {
        params: found.params,
        init: found.init,
        found_by: found.found_by,
    };
    (facts, found.initrd)
}

/// Puts everything an image yields into the cache.
fn store_all(
    fill: &Fill<'_>,
    key: &Key,
    prepared: &Prepared,
    (tree, initrd, facts): (&Arc<SquashTree>, Option<&Member>, &Facts),
) -> io::Result<(File, Option<Initrd>)> {
    let kernel = prepared.store(fill)?;
    let initrd = match initrd {
        Some(member) => Some((member, fill.initrd(|sink| tree.copy(&member.path, sink))?)),
        None => None,
    };
    let named = initrd
        .as_ref()
        .map(|(member, stored)| (member.path.as_str(), stored));
    fill.record(key, (&prepared.kernel, &kernel), named, facts)?;
    let initrd = match initrd {
        Some((member, stored)) => {
            let blob = Blob::from_file(stored.into_file())?;
            Some(Initrd::from_blob(&member.path, blob).map_err(io::Error::other)?)
        }
        None => None,
    };
    Ok((kernel.into_file(), initrd))
}

fn open_toplevel(path: &Path, cache: &MaybeCache) -> Result<Parts, OpenError> {
    let failed = |source| OpenError::Member {
        path: path.to_owned(),
        member: path.display().to_string(),
        source,
    };
    // The guest finds its system by the real path; `/run/current-system` is another one there.
    let real = path.canonicalize().map_err(failed)?;
    let Some(name) = real.to_str() else {
        return Err(failed(io::ErrorKind::InvalidFilename.into()));
    };
    let found = bootstrap::find(&HostTree::new(path), Some(name))?;
    let kernel = PathBuf::from(&found.kernel.path);
    let (facts, initrd) = split(found);
    let initrd = initrd.map(|member| PathBuf::from(member.path));
    let parts = open_files(&kernel, initrd.as_deref(), cache)?;
    Ok(Parts { facts, ..parts })
}

fn open_files(
    kernel: &Path,
    initrd: Option<&Path>,
    cache: &MaybeCache,
) -> Result<Parts, OpenError> {
    let initrd = initrd.map(open_initrd).transpose()?;
    let (kernel, cache) = open_kernel(kernel, cache)?;
    Ok(Parts {
        kernel,
        initrd,
        facts: Facts {
            params: String::new(),
            init: None,
            found_by: "files".to_owned(),
        },
        cache,
    })
}

/// Opens a kernel on the host. Only a bzImage needs the cache; an ELF kernel is read as it is.
fn open_kernel(path: &Path, cache: &MaybeCache) -> Result<(Kernel, CacheUse), OpenError> {
    let name = path.display().to_string();
    let failed = |source| KernelError::Read {
        name: name.clone(),
        source,
    };
    let kernel = Kernel::recognise(&name, Blob::open(path).map_err(failed)?)?;
    let (Image::BzImage { setup }, Blob::File { file, .. }) = (&kernel.image, &kernel.blob) else {
        return Ok((
            kernel,
            CacheUse::Unused("not needed for an ELF kernel".to_owned()),
        ));
    };
    let key = Key::of(file, setup.raw(), "kernel").map_err(failed)?;
    if let Some(parts) = look_up(cache, &key) {
        // The same file may have been cached under another path.
        let kernel = Kernel {
            name,
            ..parts.kernel
        };
        return Ok((kernel, parts.cache));
    }
    let bytes = kernel.blob.to_vec(MAX_KERNEL).map_err(failed)?;
    let prepared = Prepared::new(&name, bytes)?;
    let facts = Facts {
        params: String::new(),
        init: None,
        found_by: String::new(),
    };
    let stored = fill(cache).and_then(|fill| {
        let stored = prepared.store(&fill).map_err(|error| error.to_string())?;
        fill.record(&key, (&prepared.kernel, &stored), None, &facts)
            .map_err(|error| error.to_string())?;
        Ok(stored.into_file())
    });
    Ok(match stored {
        Ok(file) => (prepared.into_file_backed(file), CacheUse::Filled),
        Err(reason) => {
            note_unused(cache, &reason);
            (prepared.kernel, CacheUse::Unused(reason))
        }
    })
}

fn open_initrd(path: &Path) -> Result<Initrd, OpenError> {
    let blob = Blob::open(path).map_err(|source| OpenError::Initrd {
        path: path.to_owned(),
        source,
    })?;
    Initrd::from_blob(&path.display().to_string(), blob)
}

fn open_for_reading(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer that never comes.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
    OpenOptions::new()
        .read(true)
        .custom_flags(nonblock.cast_signed())
        .open(path)
}

/// A kernel in memory, unpacked if that was possible.
struct Prepared {
    kernel: Kernel,
    source_digest: String,
}

impl Prepared {
    /// Recognises and unpacks the kernel in `bytes`.
    fn new(name: &str, bytes: Vec<u8>) -> Result<Self, KernelError> {
        let source_digest = digest(&bytes);
        let mut kernel = Kernel::recognise(name, Blob::Memory(bytes))?;
        if let (Image::BzImage { .. }, Blob::Memory(bytes)) = (&kernel.image, &kernel.blob) {
            match kernel.unpacked(bytes) {
                Ok(elf) => kernel = elf,
                Err(reason) => {
                    tracing::warn!(kernel = name, %reason, "Booting the bzImage as it is");
                }
            }
        }
        Ok(Self {
            kernel,
            source_digest,
        })
    }

    fn store(&self, fill: &Fill<'_>) -> io::Result<super::cache::Stored> {
        let extension = match self.kernel.image {
            Image::Elf { .. } => "elf",
            Image::BzImage { .. } => "bzimage",
        };
        match &self.kernel.blob {
            Blob::Memory(bytes) => fill.kernel(&self.source_digest, extension, bytes),
            Blob::File { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The same kernel, read from `file`; its bytes in memory are dropped.
    fn into_file_backed(self, file: File) -> Kernel {
        match Blob::from_file(file) {
            Ok(blob) => Kernel {
                blob,
                ..self.kernel
            },
            Err(_) => self.kernel,
        }
    }
}

fn look_up(cache: &MaybeCache, key: &Key) -> Option<Parts> {
    match cache.as_ref().ok()?.lookup(key) {
        Lookup::Hit(cached) => Some(Parts {
            kernel: cached.kernel,
            initrd: cached.initrd,
            facts: cached.facts,
            cache: CacheUse::Hit,
        }),
        Lookup::Miss => None,
        Lookup::Damaged(reason) => {
            tracing::warn!(%reason, "Kernel cache is damaged, reading the source again");
            None
        }
    }
}

fn fill(cache: &MaybeCache) -> Result<Fill<'_>, String> {
    let cache = cache.as_ref().map_err(Clone::clone)?;
    cache.fill().map_err(|error| error.to_string())
}

/// Warns when a cache was wanted but cannot be used.
fn note_unused(cache: &MaybeCache, reason: &str) {
    if cache.as_ref().is_ok_and(Cache::is_writable) {
        tracing::warn!(reason, "Kernel cache is not filled");
    }
}
