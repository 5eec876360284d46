//! iperf3 for both ends of a network: a directory to run it from on the host, and an archive that,
//! after the mini guest's own, brings it into the guest.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::bundle::bundle;
use crate::cache::{Cache, Recipe};
use crate::cpio::CpioWriter;

/// Where it lies: in the entry of the cache, and in the guest.
const GUEST_DIR: &str = "iperf";

/// The program with everything it needs.
#[derive(Clone, Debug)]
pub struct Iperf {
    dir: PathBuf,
}

impl Iperf {
    /// The program, fetched when the cache has none.
    ///
    /// # Errors
    /// When its package cannot be fetched or unpacked.
    pub fn ensure(cache: &Cache) -> Result<Self> {
        let recipe = Recipe::new("iperf").with(include_str!("bundle.rs"));
        let dir = cache.entry(&recipe, |dir| bundle(cache, "iperf3", &dir.join(GUEST_DIR)))?;
        Ok(Self { dir })
    }

    /// Runs it on the host with the arguments of iperf3.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.dir.join(GUEST_DIR).join("run")
    }

    /// Writes an initial file system: `base`, then the program in `/iperf`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write_initrd(&self, base: &Path, to: &Path) -> Result<()> {
        fs::copy(base, to).with_context(|| format!("Cannot copy {}", base.display()))?;
        let file = File::options().append(true).open(to)?;
        // Archives follow each other, each from a multiple of four bytes.
        let missing = file.metadata()?.len().wrapping_neg() % 4;
        file.set_len(file.metadata()?.len().saturating_add(missing))?;
        let mut cpio = CpioWriter::new(BufWriter::new(file));
        cpio.directory(GUEST_DIR)?;
        for entry in fs::read_dir(self.dir.join(GUEST_DIR))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            cpio.file(
                &format!("{GUEST_DIR}/{name}"),
                0o755,
                &fs::read(entry.path())?,
            )?;
        }
        cpio.finish()?;
        Ok(())
    }
}
