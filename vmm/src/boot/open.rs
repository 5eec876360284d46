//! Finds what a configuration wants booted, through the cache when it helps.

use std::path::Path;

use super::blob::Blob;
use super::error::OpenError;
use super::initrd::Initrd;
use super::kernel::{Image, Kernel, KernelError, MAX_KERNEL};
use super::payload::{CacheUse, Payload};
use super::{BootConfig, BootSource, params};

/// What a source yields, before the configuration's own parameters.
pub(super) struct Parts {
    pub(super) kernel: Kernel,
    pub(super) initrd: Option<Initrd>,
    pub(super) params: String,
    pub(super) init: Option<String>,
    pub(super) found_by: String,
    pub(super) cache: CacheUse,
}

/// Finds kernel, initrd and parameters, using and filling the cache. Nothing is loaded yet, and
/// on a hit nothing but a few headers is read.
pub fn open(config: &BootConfig) -> Result<Payload, OpenError> {
    open_uncached(config)
}

/// As [`open`], without looking at the cache.
pub(super) fn open_uncached(config: &BootConfig) -> Result<Payload, OpenError> {
    let parts = match &config.source {
        BootSource::Files { kernel, initrd } => open_files(kernel, initrd.as_deref())?,
        BootSource::Bootstrap { image: path, .. } | BootSource::Toplevel { path } => {
            return Err(OpenError::NoKernel { path: path.clone() });
        }
    };
    Ok(finish(config, parts))
}

fn open_files(kernel: &Path, initrd: Option<&Path>) -> Result<Parts, OpenError> {
    let name = kernel.display().to_string();
    let read = |source| KernelError::Read {
        name: name.clone(),
        source,
    };
    let mut opened = Kernel::recognise(&name, Blob::open(kernel).map_err(read)?)?;
    if let Image::BzImage { .. } = opened.image {
        let bytes = opened.blob.to_vec(MAX_KERNEL).map_err(read)?;
        if let Ok(elf) = opened.unpacked(&bytes) {
            opened = elf;
        }
    }
    let initrd = initrd.map(open_initrd).transpose()?;
    Ok(Parts {
        kernel: opened,
        initrd,
        params: String::new(),
        init: None,
        found_by: "files".to_owned(),
        cache: CacheUse::Unused("none configured".to_owned()),
    })
}

fn open_initrd(path: &Path) -> Result<Initrd, OpenError> {
    let blob = Blob::open(path).map_err(|source| OpenError::Initrd {
        path: path.to_owned(),
        source,
    })?;
    Initrd::from_blob(&path.display().to_string(), blob)
}

/// Adds `init=` and the configuration's parameters.
fn finish(config: &BootConfig, parts: Parts) -> Payload {
    let init = config.init.as_ref().or(parts.init.as_ref());
    let with_init = match init {
        Some(init) => params::with_init(&parts.params, init),
        None => parts.params,
    };
    Payload {
        kernel: parts.kernel,
        initrd: parts.initrd,
        params: params::insert(&with_init, &config.params),
        found_by: parts.found_by,
        cache: parts.cache,
        config: config.clone(),
    }
}
