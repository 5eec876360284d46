//! What one machine has to itself: images that it writes to, and a configuration with a run directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use store::copy::{Method, copy_image};

use super::super::{CommandError, Context};
use super::cards::Cards;
use super::overlay::{self, Replaced};
use crate::resolve::{Disk, Slot};

/// A disk as the slot has it, copied once.
#[derive(Debug)]
pub(super) struct Base {
    /// Which disk.
    pub(super) disk: Disk,
    /// Its copy, which nobody writes to.
    pub(super) path: PathBuf,
}

/// A place for one machine.
#[derive(Debug)]
pub(super) struct Berth {
    /// The configuration directory, also the place of its sockets.
    config: PathBuf,
    /// What is copied before each boot, from and to, by the disk's name.
    images: Vec<(String, PathBuf, PathBuf)>,
}

impl Berth {
    /// Writes a configuration to `config`, with images in `scratch` that do not exist yet.
    pub(super) fn make(
        context: &Context,
        (argument, slot): (&str, &Slot),
        (bases, cards): (&[Base], &Cards),
        (scratch, config): (&Path, PathBuf),
    ) -> Result<Self, CommandError> {
        fs::create_dir_all(scratch).map_err(CommandError::on("make a directory for copies"))?;
        let image = |base: &Base| scratch.join(format!("{}.img", base.disk.id));
        let replaced: Vec<Replaced> = bases
            .iter()
            .map(|base| Replaced::new(&base.disk, image(base)))
            .collect();
        overlay::write(context, argument, (slot, &replaced, cards), &config)?;
        let images = bases
            .iter()
            .map(|base| (base.disk.id.clone(), base.path.clone(), image(base)));
        Ok(Self {
            config,
            images: images.collect(),
        })
    }

    /// The configuration directory.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Where the image of a disk is, when boots write to it.
    pub(super) fn image(&self, id: &str) -> Option<&Path> {
        let found = self.images.iter().find(|(name, ..)| name == id);
        found.map(|(_, _, to)| to.as_path())
    }

    /// Makes every disk as it was.
    pub(super) fn fresh_disks(&self) -> io::Result<()> {
        self.images.iter().try_for_each(|(_, from, to)| {
            let to = File::create(to)?;
            copy_image(&File::open(from)?, &to, Method::Auto, &|_| {}).map(drop)
        })
    }
}
