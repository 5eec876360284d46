//! First filesystems of guests: a static busybox, a kernel's modules, a script of ours as init.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cpio::CpioWriter;
use crate::kernels::Kernel;
use crate::tools::Tools;

/// What goes into an initrd.
#[derive(Debug)]
pub(super) struct Initrd<'a> {
    /// Modules that init inserts first, with what they need.
    pub(super) boot_modules: &'a [&'a str],
    /// Modules that are there for `modprobe`.
    pub(super) more_modules: &'a [&'a str],
    /// The init script.
    pub(super) init: &'a [u8],
}

impl Initrd<'_> {
    /// Writes it, uncompressed: unpacking costs the guest more than reading costs the host.
    pub(super) fn write(&self, kernel: &Kernel, tools: &Tools, path: &Path) -> Result<()> {
        let modules = kernel.modules()?;
        let boot = modules.closure(self.boot_modules)?;
        let mut all = boot.clone();
        for name in modules.closure(self.more_modules)? {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        let file =
            File::create(path).with_context(|| format!("Cannot create {}", path.display()))?;
        let mut cpio = CpioWriter::new(BufWriter::new(file));
        for dir in [
            "bin",
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "mnt",
            "etc",
            "etc/acpi",
            "etc/acpi/PWRF",
            "modules",
        ] {
            cpio.directory(dir)?;
        }
        cpio.file("init", 0o755, self.init)?;
        cpio.file("bin/busybox", 0o755, &fs::read(tools.busybox())?)?;
        cpio.symlink("bin/sh", "busybox")?;
        cpio.file(
            "etc/acpi/PWRF/00000080",
            0o755,
            b"#!/bin/sh\necho MINI button\npoweroff -f\n",
        )?;
        for name in &all {
            cpio.file(
                &format!("modules/{name}.ko"),
                0o644,
                &modules.load(name)?.object,
            )?;
        }
        cpio.file("modules/boot", 0o644, lines(&boot).as_bytes())?;
        // A file for each: what it needs, then itself, in the order to insert.
        for name in self.more_modules {
            let needs = modules.closure(&[name])?;
            cpio.file(
                &format!("modules/{name}.needs"),
                0o644,
                lines(&needs).as_bytes(),
            )?;
        }
        cpio.finish()?;
        Ok(())
    }
}

fn lines(names: &[String]) -> String {
    names
        .iter()
        .flat_map(|name| [name.as_str(), "\n"])
        .collect()
}
