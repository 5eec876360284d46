//! iperf3 for both ends of a network: a directory to run it from on the host, and an archive that,
//! after the mini guest's own, brings it into the guest.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Recipe};
use crate::cpio::CpioWriter;
use crate::packages::{Apt, Suite, unpack};
use crate::process;

/// Where it lies: in the entry of the cache, and in the guest.
const GUEST_DIR: &str = "iperf";

const LOADER: &str = "ld-linux-x86-64.so.2";
const PROGRAM: &str = "iperf3";
/// Starts the program beside it with the C library beside it.
const WRAPPER: &[u8] =
    b"#!/bin/sh\ncd \"${0%/*}\" && exec ./ld-linux-x86-64.so.2 --library-path . ./iperf3 \"$@\"\n";

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
        let recipe = Recipe::new("iperf").with(include_str!("iperf.rs"));
        let dir = cache.entry(&recipe, |dir| build(cache, dir))?;
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

fn build(cache: &Cache, dir: &Path) -> Result<()> {
    let (archives, root) = (dir.join("archives"), dir.join("root"));
    Apt::open(cache, Suite::Trixie)?.download_closure(&[PROGRAM], &archives)?;
    unpack(&archives, &root)?;
    let lib = root.join("usr/lib/x86_64-linux-gnu");
    let program = root.join("usr/bin").join(PROGRAM);
    let target = dir.join(GUEST_DIR);
    fs::create_dir(&target)?;
    // The C library loads the last one by name, to end a thread.
    let mut files = vec![program.clone(), lib.join(LOADER), lib.join("libgcc_s.so.1")];
    files.extend(libraries(&lib, &program)?);
    for file in &files {
        let Some(name) = file.file_name() else {
            bail!("{} is no file", file.display())
        };
        fs::copy(file, target.join(name))
            .with_context(|| format!("Cannot copy {}", file.display()))?;
    }
    fs::write(target.join("run"), WRAPPER)?;
    fs::set_permissions(target.join("run"), fs::Permissions::from_mode(0o755))?;
    fs::remove_dir_all(&archives)?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// The libraries in `lib` that `program` is linked against: lines of the form `name => path (address)`.
fn libraries(lib: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let mut list = Command::new(lib.join(LOADER));
    list.arg("--library-path")
        .arg(lib)
        .arg("--list")
        .arg(program);
    let listed = process::output(&mut list)?;
    let paths = listed.lines().filter_map(|line| {
        let path = line.split_once("=> ")?.1.split(' ').next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths
        .filter(|path| path.file_name() != Some(LOADER.as_ref()))
        .collect())
}
