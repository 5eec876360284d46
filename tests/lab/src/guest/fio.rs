//! fio for guests: a disk to mount, with the program and everything it needs.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::bundle::bundle;
use super::squashfs::{self, Compressor};
use crate::cache::{Cache, Recipe};
use crate::tools::Tools;

/// The image, fetched and packed when the cache has none; `run` in it takes the arguments of fio.
///
/// # Errors
/// When its package cannot be fetched, or the image cannot be written.
pub(super) fn image(cache: &Cache, tools: &Tools) -> Result<PathBuf> {
    let recipe = Recipe::new("fio").with(include_str!("bundle.rs"));
    let dir = cache.entry(&recipe, |dir| {
        let files = dir.join("fio");
        bundle(cache, "fio", &files)?;
        squashfs::pack(tools, &files, Compressor::Lz4, &dir.join("fio.squashfs"))?;
        Ok(fs::remove_dir_all(&files)?)
    })?;
    Ok(dir.join("fio.squashfs"))
}
